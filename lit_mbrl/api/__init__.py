"""What Python programs use: `lit_mbrl.load`, `fit`, `evaluate`, `list_algorithms`, `make_env`."""
