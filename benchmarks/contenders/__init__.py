"""Training loops that are compared: ours, peers, and the bare limit."""
