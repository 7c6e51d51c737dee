"""Measurements that are run by themselves: `python -m benchmarks.studies.NAME`."""
