"""Whole runs: kills, damage, resume, devices, sweeps, mistakes."""
