"""Environments that are not Gymnasium's own: the papers' tasks, DeepMind Control, Procgen."""
