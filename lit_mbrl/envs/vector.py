"""The TorchRL environment everybody steps: copies of a Gymnasium environment, in this process or in workers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from lit_mbrl.envs.finite import faulty_rows, is_finite, where_not_finite
from lit_mbrl.envs.guard import EnvFailed
from lit_mbrl.envs.pool import LocalPool, WorkerPool
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.tasks.procgen_games import ProcgenPool, is_game
from lit_mbrl.envs.tasks.sokoban.pool import SokobanPool, is_batched
from lit_mbrl.envs.transition import Transition
from lit_mbrl.utils.errors import OptionError

_LOG = logging.getLogger(__name__)
NonFinite = Literal["stop", "restart", "end"]
_MAX_RESTARTS = 10  # of an episode in one step


class VectorEnv(EnvBase):
    """`num_envs` copies of an environment as one batched TorchRL environment on the CPU.

    | key | shape | |
    |---|---|---|
    | `observation` | [N, O] float32, or [N, C, H, W] uint8 if images | at the root and in `next` |
    | `is_init` | [N, 1] bool | True with the first observation of an episode, False in `next` |
    | `action` | [N, A] float32 in [-1, 1], or [N] int64 if discrete | in |
    | `next.reward` | [N, 1] float32 | |
    | `terminated`, `truncated`, `done` | [N, 1] bool | at the root (False) and in `next`; done is either |

    Finished copies are reset by TorchRL's partial reset (`_reset`), so `next.observation` is always the true last one.

    Args:
        config: which environment, how many copies, in workers or not.
        seed: copy i is seeded with `seed + i` at its next reset.
        num_envs: replaces `config.num_envs`.

    Attributes:
        non_finite: what an observation or a reward that is NaN or infinite does. `"stop"` raises `EnvFailed`.
            `"restart"`: the copy begins a new episode and takes the step there; `pop_truncations` tells. `"end"`: the
            episode is truncated with that step, which has zeros in their place.
        faults: steps that were left out so far.
        first_root: what the last reset of all copies returned.

    Raises:
        OptionError: if the environment cannot be made or its observation is neither a vector nor an image.
        EnvFailed: if an environment raises, does not return, or returns what it must not (`guard.Guard`).
        TrainingError: if worker processes keep dying (`pool.WorkerPool`).
    """

    def __init__(self, config: EnvConfig, seed: int, num_envs: int | None = None) -> None:
        config = config if num_envs is None else replace(config, num_envs=num_envs)
        n = config.num_envs
        super().__init__(device=torch.device("cpu"), batch_size=(n,))
        self.config = config
        self._pool = _make_pool(config, n)
        self._false = torch.zeros(n, 1, dtype=torch.bool)
        self.non_finite: NonFinite = "stop"
        self.faults = 0
        self.first_root = TensorDict({}, (n,))
        self._cut: list[tuple[int, int, Tensor]] = []
        self._steps = 0
        self._action = np.zeros(0)
        self._make_specs()
        self.is_closed = False
        self._pending_seeds: list[int | None] = [None] * n
        self._set_seed(seed)

    def _make_specs(self) -> None:
        n, spec = self.config.num_envs, self._pool.spec
        flag = Binary(n=1, shape=(n, 1), dtype=torch.bool)
        self.observation_spec = Composite(
            observation=Bounded(0, 255, shape=(n, *spec.observation_shape), dtype=torch.uint8)
            if spec.pixels
            else Unbounded(shape=(n, spec.observation_dim), dtype=torch.float32),
            is_init=flag.clone(),
            shape=(n,),
        )
        self.action_spec = (
            Categorical(spec.action_dim, shape=(n,), dtype=torch.int64)
            if spec.discrete
            else Bounded(-1.0, 1.0, shape=(n, spec.action_dim), dtype=torch.float32)
        )
        self.reward_spec = Unbounded(shape=(n, 1), dtype=torch.float32)
        self.done_spec = Composite(done=flag.clone(), terminated=flag.clone(), truncated=flag.clone(), shape=(n,))

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self._pending_seeds = [seed + i for i in range(self.config.num_envs)]

    def set_seeds(self, seeds: Sequence[int | None]) -> None:
        """Seeds each copy at its next reset; None: it goes on with its own random numbers."""
        self._pending_seeds = list(seeds)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        rows = None if mask is None else mask.reshape(-1).numpy()
        root = TensorDict(
            {
                "observation": torch.from_numpy(self.restart(rows)),
                "is_init": ~self._false if mask is None else mask.reshape(-1, 1).clone(),
                "done": self._false.clone(),
                "terminated": self._false.clone(),
                "truncated": self._false.clone(),
            },
            batch_size=self.batch_size,
            device=self.device,
        )
        if mask is None:
            self.first_root = root
        return root

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = tensordict.get("action").detach().numpy()
        observation, reward, terminated, truncated = self.advance(action)
        return TensorDict(
            {
                "observation": torch.from_numpy(observation),
                "is_init": self._false.clone(),
                "reward": torch.from_numpy(reward),
                "done": torch.from_numpy(terminated | truncated),
                "terminated": torch.from_numpy(terminated),
                "truncated": torch.from_numpy(truncated),
            },
            batch_size=self.batch_size,
            device=self.device,
        )

    def restart(self, rows: np.ndarray | None) -> np.ndarray:
        """Starts new episodes in the copies where `rows` `[N]` is True, in all if None.

        Returns:
            First observations `[N, O]`, of images `[N, C, H, W]`; zero for the copies that go on.
        """
        observation = self._pool.reset(rows, self._pending_seeds)
        self._pending_seeds = [
            seed if rows is not None and not rows[i] else None for i, seed in enumerate(self._pending_seeds)
        ]
        return observation if is_finite(observation) else self._restart_again(observation)

    def advance(self, action: np.ndarray) -> Transition:
        """One step of every copy, without TensorDicts and without resets; `action` `[N, A]`, or `[N]` if discrete."""
        self._action = action
        return self._note(self._pool.step(action))

    def step_async(self, action: np.ndarray) -> None:
        """Begins what `advance` does; with worker processes they are at it while this one goes on.

        Until `step_wait` nothing else may be asked of the copies.
        """
        assert isinstance(self._pool, WorkerPool)  # who begins steps has made sure of that
        self._action = action.copy()  # the policy may act again before `step_wait`
        self._pool.step_async(action)

    def step_wait(self) -> Transition:
        """Waits for the step that was begun, and returns what `advance` would have."""
        assert isinstance(self._pool, WorkerPool)
        return self._note(self._pool.step_wait())

    def _note(self, transition: Transition) -> Transition:
        for row, first in self._pool.restarted().items():
            self._cut.append((self._steps, row, torch.from_numpy(first)))
        if not (is_finite(transition.observation) and is_finite(transition.reward)):
            transition = self._without_faults(transition)
        self._steps += 1
        return transition

    def _without_faults(self, transition: Transition) -> Transition:
        """The step with what is not finite left out, or `EnvFailed`: see `non_finite`."""
        rows = faulty_rows(transition)
        if self.non_finite == "end":
            return self._end(transition, rows)
        started = np.zeros_like(transition.observation)
        restarted = np.zeros_like(rows)
        for _ in range(_MAX_RESTARTS):
            if not rows.any():
                break
            if self.non_finite == "stop":
                raise self._fault(transition, rows)
            self._leave_out(transition, rows)
            restarted |= rows
            first = self._pool.reset(rows, [None] * len(rows))
            started[rows] = (first if is_finite(first) else self._restart_again(first))[rows]
            for whole, part in zip(transition, self._pool.step(self._action, rows), strict=True):
                whole[rows] = part[rows]
            rows = faulty_rows(transition)
        if rows.any():
            raise self._fault(transition, rows, f" {_MAX_RESTARTS + 1} times in a row")
        self._cut += [(self._steps, int(row), torch.from_numpy(started[row])) for row in np.flatnonzero(restarted)]
        return transition

    def _end(self, transition: Transition, rows: np.ndarray) -> Transition:
        self._leave_out(transition, rows)
        transition.observation[rows] = np.nan_to_num(transition.observation[rows], posinf=0.0, neginf=0.0)
        transition.reward[rows] = 0.0
        transition.truncated[rows] = ~transition.terminated[rows]
        return transition

    def _restart_again(self, observation: np.ndarray) -> np.ndarray:
        """First observations of episodes that all are finite, where some of these `[N, O]` are not."""
        for _ in range(_MAX_RESTARTS):
            rows = ~np.isfinite(observation).reshape(len(observation), -1).all(-1)
            if not rows.any():
                return observation
            if self.non_finite == "stop":
                break
            self.faults += int(rows.sum())
            observation[rows] = self._pool.reset(rows, [None] * len(rows))[rows]
        copy = int(np.flatnonzero(rows)[0])
        raise EnvFailed(self.config.name, self._which(copy, "reset"), where_not_finite(observation[copy], 0.0) or "")

    def _which(self, copy: int, where: str) -> str:
        return where if self.config.num_envs == 1 else f"copy {copy}, {where}"

    def _leave_out(self, transition: Transition, rows: np.ndarray) -> None:
        if self.faults == 0:
            fault = self._fault(transition, rows)
            _LOG.warning("warning: %s; such steps are left out (--non_finite=skip)", fault)
        self.faults += int(rows.sum())

    def _fault(self, transition: Transition, rows: np.ndarray, more: str = "") -> EnvFailed:
        copy = int(np.flatnonzero(rows)[0])
        step = self._pool.episode_steps()[copy]
        problem = where_not_finite(transition.observation[copy], transition.reward[copy, 0])
        return EnvFailed(self.config.name, self._which(copy, f"step {step:,} of an episode"), f"{problem}{more}")

    def pop_truncations(self) -> list[tuple[int, int, Tensor]]:
        """Episodes that a worker's death has cut since the last call.

        Returns:
            `(step, copy, observation [O])`: that step, counted from the last call, was the copy's first in a new
            episode and was taken from this observation, not from the one at the root of the step's frame.
        """
        cut, self._cut, self._steps = self._cut, [], 0
        return cut

    def get_env_state(self) -> list[dict[str, Any]] | None:
        """The exact state of every copy, as plain values and tensors that `torch.load(weights_only=True)` reads.

        Returns:
            One dict per copy, or None if the environment cannot be restored exactly.
        """
        states = self._pool.get_state()
        if any(state is None for state in states):
            return None
        return [
            {"env": _to_torch(state), "seed": seed} for state, seed in zip(states, self._pending_seeds, strict=True)
        ]

    def set_env_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Puts every copy where `get_env_state` found it: the next step continues bit for bit.

        Raises:
            OptionError: if the number of copies or the kind of environment differs.
        """
        if len(states) != self.config.num_envs:
            raise OptionError("data.env.num_envs", self.config.num_envs, f"{len(states)} as in the checkpoint")
        self._pool.set_state([_to_numpy(state["env"]) for state in states])
        self._pending_seeds = [state["seed"] for state in states]

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Closes the copies and ends their workers; a second call does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self._pool.close()


def _make_pool(config: EnvConfig, count: int) -> LocalPool | WorkerPool | ProcgenPool | SokobanPool:
    if is_game(config.name) and "render_mode" not in config.kwargs:  # images are drawn one copy at a time
        return ProcgenPool(config, count)
    if is_batched(config):
        return SokobanPool(config, count)
    return (WorkerPool if config.workers else LocalPool)(config, count)


def _to_torch(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _to_torch(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_to_torch(value) for value in tree]
    return torch.from_numpy(tree.copy()) if isinstance(tree, np.ndarray) else tree


def _to_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _to_numpy(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_to_numpy(value) for value in tree]
    return tree.cpu().numpy() if isinstance(tree, torch.Tensor) else tree
