"""Interleaved measurements, their settings and tables."""
