"""Benchmarks of the whole server and of its parts. `python -m tests.bench` says what there is."""
