"""Where one session of a user ends and the next one begins: said once, for all that counts or replays sessions."""

from __future__ import annotations

import numpy as np

NO_SESSION = -1
"""Instead of the number of a `session_id`: an interaction has none."""


def begins(user: np.ndarray, session: np.ndarray, time: np.ndarray, gap_seconds: float) -> np.ndarray:
    """bool[n]: which interactions are the first of a session.

    A session is what one user did under one `session_id`; what has none belongs to one session as long as less than
    `gap_seconds` passes from each of the user's interactions without one to the next.

    Requires: they are in the order of user, session, time.
    """
    found = np.ones(len(user), dtype=bool)
    is_same = (user[1:] == user[:-1]) & (session[1:] == session[:-1])
    is_close = (session[1:] != NO_SESSION) | (time[1:] - time[:-1] < gap_seconds)
    found[1:] = ~(is_same & is_close)
    return found
