"""Tests of single parts, in the folders of `lit_mbrl/`."""
