#!/usr/bin/env bash
# Compile the lock files. torch is written without its local version, so that any build of 2.13.0 fits.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
compile() { .venv/bin/uv pip compile --quiet --no-annotate --no-header --python-version 3.11 "$@"; }
# The locks' own `torch==2.13.0` would be preferred to the CPU build of it, and bring CUDA along.
sed -i '/^torch==/d' requirements/shortlist.lock requirements/recbole.lock
compile setup.cfg --extra batch --extra serve --extra dev -o requirements/shortlist.lock
compile setup.cfg --extra serve --extra redis -c requirements/shortlist.lock -o requirements/serve.lock
compile setup.cfg --extra serve --extra traces -c requirements/shortlist.lock -o requirements/traces.lock
compile setup.cfg --extra bench -c requirements/shortlist.lock -o requirements/bench.lock
compile setup.cfg --extra text -c requirements/shortlist.lock -o requirements/text.lock
compile requirements/airflow.in --override requirements/overrides.txt -o requirements/airflow.lock
compile requirements/recbole.in --override requirements/recbole-overrides.txt -o requirements/recbole.lock
sed -i 's/+cpu$//' requirements/*.lock
