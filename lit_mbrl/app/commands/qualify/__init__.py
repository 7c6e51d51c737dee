"""`python -m lit_mbrl qualify`: whether a config dependably learns, over seeds and floating-point paths."""
