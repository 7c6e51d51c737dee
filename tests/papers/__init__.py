"""Configurations against the tables of their papers."""
