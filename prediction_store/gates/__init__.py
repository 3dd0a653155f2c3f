"""The gates: what a version must show, by itself and against the current one, before it may become current.

`run` has the list of them. Each measures in a function of its own and knows nothing of its thresholds, which stand
under its name in `schemas.gate_config`.
"""

from __future__ import annotations

from prediction_store.gate_report import describe, require_passed
from prediction_store.gates.run import GATES, run_gates

__all__ = ["GATES", "describe", "require_passed", "run_gates"]
