"""Data modules: how experience is collected, kept and served."""

from lit_mbrl.data.dyna import Dyna
from lit_mbrl.data.latent import Sequences
from lit_mbrl.data.off_policy import OffPolicy
from lit_mbrl.data.on_policy import OnPolicy
from lit_mbrl.data.prioritized import PrioritizedDyna
from lit_mbrl.data.replay import Replay

__all__ = ["Dyna", "OffPolicy", "OnPolicy", "PrioritizedDyna", "Replay", "Sequences"]
