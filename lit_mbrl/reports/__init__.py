"""What finished and running runs have to show: statistics over seeds, learning curves, tables.

Nothing here imports torch, so that a picture takes a second or two.
"""
