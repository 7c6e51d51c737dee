"""Trained agents: a checkpoint that acts."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mbrl.app.checkpoints import followed
from lit_mbrl.envs import EnvConfig
from lit_mbrl.envs.interface import Interface
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.training.loading import load_agent
from lit_mbrl.utils.errors import UsageError, require
from lit_mbrl.utils.trust import only_installed


class TrainedAgent:
    """A trained algorithm that takes an environment's own observations and returns its own actions.

    Observations are normalised as in training and actions scaled to the environment's bounds. It remembers what its
    policy does of the running episodes (the state of a latent model, the plan of a planner): `reset` says that new
    ones begin.

    Attributes:
        algorithm: the Lightning module.
        env: the configuration of the environment that it was trained in.
        observation_space: that environment's own.
        action_space: that environment's own.
    """

    def __init__(self, algorithm: Algorithm, env: EnvConfig) -> None:
        self.algorithm, self.env = algorithm, env
        self._interface = Interface(env)
        self.observation_space, self.action_space = self._interface.observation_space, self._interface.action_space
        self._policy: Callable[[Tensor, Tensor], Tensor] | None = None
        self._count = 0

    def __repr__(self) -> str:
        return (
            f"<{type(self.algorithm).__name__} trained on {self.env.name} for {self.algorithm.env_steps:,} env steps>"
        )

    def reset(self) -> None:
        """Forgets the running episodes: the next observations are the first of new ones."""
        self._policy = None
        self.algorithm.lose_track()

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True, is_init: Any = None) -> Any:
        """Chooses actions.

        Args:
            observation: one, or a batch as Gymnasium's vector environments return it.
            deterministic: the policy of evaluation; False: the exploring one.
            is_init: `[N]`, which observations of a batch begin an episode; None: all after `reset`, and none later.

        Returns:
            An action for one observation, a batch for a batch, with the action space's type and bounds.

        Raises:
            UsageError: if the observation is none of the environment's, or a batch has another size than the last one.
        """
        seen, single = self._interface.observation(observation)
        count = len(seen)
        first = None if is_init is None else np.asarray(is_init, np.bool_).reshape(-1)
        if first is not None and len(first) != count:
            raise UsageError(f"act: is_init has {len(first)} entries: expected one for each of {count} observations")
        if self._policy is not None and count != self._count and first is not None and first.all():
            self.reset()
        fresh = self._policy is None
        if self._policy is None:
            self._policy, self._count = self.algorithm.eval_policy(), count
        if count != self._count:
            raise UsageError(f"act: {count} observations after {self._count}: expected reset() in between")
        if first is None:
            first = np.full(count, fresh)
        device = self.algorithm.device
        x = self.algorithm.normalize(torch.from_numpy(np.ascontiguousarray(seen)).to(device))
        begins = torch.from_numpy(first | fresh).unsqueeze(-1).to(device)
        chosen = self._policy(x, begins) if deterministic else self.algorithm.explore(x, begins)
        action = self._interface.action(chosen.cpu().numpy())
        return action[0] if single else action


def load(path: str | Path, device: Any = "cpu", *, trust: bool = False) -> TrainedAgent:
    """Loads a trained agent.

    Args:
        path: a checkpoint, or a run folder, whose best checkpoint is taken, or else its last one.
        device: where its networks go.
        trust: whether the checkpoint may name modules that are neither ours nor installed.

    Raises:
        OptionError: if there is no checkpoint, or it is damaged or another program's.
    """
    file = followed(checkpoint_of(Path(path)))
    algorithm, env = load_agent(file, Algorithm, device, trust, {})
    with nullcontext() if trust else only_installed(file):
        return TrainedAgent(algorithm.eval(), env)


def checkpoint_of(path: Path) -> Path:
    """Returns the checkpoint that a path means: itself, or that of a run folder.

    Raises:
        OptionError: if a folder has none.
    """
    if not os.path.isdir(path):
        return path
    found = [file for name in ("best.ckpt", "last.ckpt") for file in (path / name, *sorted(path.glob(f"*/{name}")))]
    existing = [file for file in found if file.is_file()]
    require(existing != [], "ckpt_path", path, "a checkpoint, or a run folder with one")
    return existing[0]
