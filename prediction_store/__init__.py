"""The prediction store: immutable versions on disk, the history that says which one is served, the gates before it."""
