"""lit_mbrl: model-based and maximum-entropy reinforcement learning as Lightning modules."""

__version__ = "0.1.0"
