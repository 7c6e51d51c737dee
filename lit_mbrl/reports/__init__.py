"""Reports on finished and running runs: statistics over seeds, learning curves, tables.

Nothing here imports torch, so that a figure takes a second or two.
"""
