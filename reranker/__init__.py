"""The online process: one user's stored list, re-ranked by what the user did in the last seconds."""
