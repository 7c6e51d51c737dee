"""Wrappers around one environment, and how it is drawn."""
