"""Trains, loads and evaluates from Python: `lit_mbrl.load`, `fit`, `evaluate`, `list_algorithms`, `make_env`."""
