"""Benchmarks, run by hand and by `make bench`. Each compares with a named peer in the same run."""
