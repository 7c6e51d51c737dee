"""Where data modules keep frames: in memory, in files and in checkpoints."""
