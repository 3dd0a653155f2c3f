"""Every combination of what an answer can be asked for, drawn at random and held against what must always hold."""
