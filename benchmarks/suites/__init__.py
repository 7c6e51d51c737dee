"""Sections of `python -m benchmarks`."""
