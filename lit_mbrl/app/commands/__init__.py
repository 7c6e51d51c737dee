"""Commands with a parser of their own; each module has a `run`."""
