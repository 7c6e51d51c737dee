"""Machinery of a training step, shared by all algorithms."""
