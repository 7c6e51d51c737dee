"""The tables and figures of the source documents as experiments: tasks, variants, seeds, the papers' own numbers."""
