"""Buffers of data modules: in memory, in files and in checkpoints."""
