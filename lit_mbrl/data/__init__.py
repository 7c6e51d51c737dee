"""Data modules: how experience is collected, kept and served."""

from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.data.off_policy import OffPolicy
from lit_mbrl.data.on_policy import OnPolicy
from lit_mbrl.data.sequences import SequenceReplay

__all__ = ["OffPolicy", "OnPolicy", "Replay", "SequenceReplay"]
