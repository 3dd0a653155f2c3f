"""The batch journey, one file per step; `journey` has their order."""
