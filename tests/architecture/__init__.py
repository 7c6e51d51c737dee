"""Imports and documentation."""
