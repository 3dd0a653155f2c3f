"""The serving log: what was shown and what users did, in append-only segments that a crash cannot spoil."""
