"""Experiments of many runs: what the commands have in common that train one process per seed."""
