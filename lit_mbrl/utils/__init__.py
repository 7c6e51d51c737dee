"""Utilities that every part may import, and that import no part."""
