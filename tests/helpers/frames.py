"""Made-up frames and the algorithms that tests run over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict

from lit_mbrl.algorithms import DDPG, MVE, MVEDDPG, NAF, SAC, SACSVG, STEVE, STEVESAC, TD3, Algorithm
from lit_mbrl.models import EnsembleConfig, SplitEnsembleConfig

SMALL = {"hidden_sizes": [8, 8], "model_hidden_size": 8}


def small_ensembles(members: int = 2) -> SplitEnsembleConfig:
    """STEVE's model with so many members of each kind."""
    return SplitEnsembleConfig(num_transitions=members, num_rewards=members, hidden_sizes=[8, 8], head_sizes=[8])


ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    "sac": lambda: SAC(hidden_sizes=[8, 8]),
    "td3": lambda: TD3(hidden_sizes=[8, 8]),
    "ddpg": lambda: DDPG(hidden_sizes=[8, 8]),
    "naf": lambda: NAF(hidden_sizes=[8, 8]),
    "sac_svg": lambda: SACSVG(horizon=2, **SMALL),
    "sac_svg_code": lambda: SACSVG(
        horizon=2, variant="reference", detach_model_state=True, model_max_grad_norm=1.0, **SMALL
    ),
    "sac_svg_ensemble": lambda: SACSVG(
        horizon=2, hidden_sizes=[8, 8], world_model=EnsembleConfig(num_members=3, num_elites=3, hidden_sizes=[8, 8])
    ),
    "ivg": lambda: SACSVG(horizon=2, init_alpha=0.0, learn_alpha=False, **SMALL),
    "mbpg": lambda: SACSVG(horizon=2, init_alpha=0.0, learn_alpha=False, terminal_value=False, **SMALL),
    "mve": lambda: MVE(critic_horizon=2, horizon=0, **SMALL),
    "mve_svg": lambda: MVE(critic_horizon=2, horizon=1, **SMALL),
    "steve": lambda: STEVE(horizon=2, num_critics=2, hidden_sizes=[8, 8], world_model=small_ensembles()),
    "steve_sac": lambda: STEVESAC(horizon=2, num_critics=2, hidden_sizes=[8, 8], world_model=small_ensembles()),
    "mve_ddpg": lambda: MVEDDPG(horizon=2, hidden_sizes=[8, 8], world_model=small_ensembles(1)),
}


def make_frames(*shape: int, observation_dim: int = 3, action_dim: int = 2, terminated: float = 0.3) -> TensorDict:
    """Random frames of any batch shape, with the keys that losses read."""
    return TensorDict(
        {
            "observation": torch.randn(*shape, observation_dim),
            "action": torch.rand(*shape, action_dim) * 2 - 1,
            "next": {
                "observation": torch.randn(*shape, observation_dim),
                "reward": torch.randn(*shape, 1),
                "terminated": torch.rand(*shape, 1) < terminated,
            },
        },
        shape,
    )


def make_batch(algorithm: Algorithm, kind: str, size: int = 6) -> TensorDict:
    """A batch as `update.batch` names it."""
    return make_frames(size, algorithm.sampling().sequence_length) if kind == "sequences" else make_frames(size)


def make_given(size: int = 6) -> dict[str, Any]:
    """Makes the values that a model-free update takes from those before it."""
    return {"log_prob": torch.randn(size, 1)}
