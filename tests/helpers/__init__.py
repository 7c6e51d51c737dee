"""Small runs, environments and algorithms that tests share."""
