"""The README's promises, each with trials that try to break it: a few in `make test`, all of them in `make soak`."""
