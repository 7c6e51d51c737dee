"""What is learned, against known optima and thresholds."""
