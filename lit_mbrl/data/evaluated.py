"""Evaluates and records the current policy, for data modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.data.buffers.transitions import STORED
from lit_mbrl.data.evaluation import run_episodes
from lit_mbrl.envs import EnvConfig, Spec, VectorEnv
from lit_mbrl.envs.wrappers.recording import RecordedEnv
from lit_mbrl.envs.wrappers.rendering import require_rendering
from lit_mbrl.utils import distributed
from lit_mbrl.utils.random_state import get_random_state, set_random_state

EvalPolicy = Callable[[Tensor, Tensor], Tensor]
AS_TRAINED = "train_levels"


class EvaluationMixin:
    """Deterministic episodes of the current policy, for a data module with these attributes."""

    env: EnvConfig
    eval_episodes: int
    trainer: Any
    evaluated_keys: ClassVar[Sequence[Any]] = STORED  # what is kept of an evaluation's frames
    _eval_envs: dict[bool, VectorEnv]

    @property
    def spec(self) -> Spec:
        """Sizes and kind of the environment's observations and actions."""
        raise NotImplementedError

    @property
    def env_steps(self) -> int:
        """Environment steps so far."""
        raise NotImplementedError

    def evaluations(self) -> list[str]:
        """Names of the evaluations, each of which plays episodes of its own, from the same start states.

        The first, `""`, is of the algorithm's policy. `"train_levels"` is of the same in the environment of training,
        where `env.eval_kwargs` gives the others another; the rest are further policies of the algorithm's.
        """
        trained = [] if self.env.eval_kwargs is None else [AS_TRAINED]
        return ["", *trained, *self.trainer.lightning_module.also_evaluated]

    def evaluate(self, name: str = "") -> TensorDictBase:
        """Deterministic episodes `[K, T]` of the current policy; leaves every random state as it was.

        The start states depend on the run's seed and on `env_steps` alone, so they differ from one evaluation to the
        next but not between a run and its resumed copy. On several devices rank 0 plays, and all get its episodes.

        Args:
            name: one of `evaluations`.
        """
        return distributed.broadcast(self._evaluate(name) if distributed.rank() == 0 else None)

    def _evaluate(self, name: str) -> TensorDictBase:
        random_state, as_trained = get_random_state(), name == AS_TRAINED
        further = None if name in ("", AS_TRAINED) else self.trainer.lightning_module.further_policy(name)
        if as_trained not in self._eval_envs:
            config = self.env if as_trained else self.env.eval_config()
            self._eval_envs[as_trained] = VectorEnv(config, seed=self.evaluation_seed, num_envs=self.eval_episodes)
        env, whole = self._eval_envs[as_trained], False
        env.non_finite = "end" if self.trainer.lightning_module.finite.action == "skip" else "stop"
        while not whole:
            env.set_seed(self.evaluation_seed)
            episodes = self.run_eval_episodes(env, further)
            whole = not env.pop_truncations()  # once more if a worker has died in the middle of it
        set_random_state(random_state)
        return episodes

    @property
    def evaluation_seed(self) -> int:
        """Seed of the first evaluation episode at this environment step; the next episodes count on from it.

        The run's seed and the step are hashed: runs with the seeds 10 and 11 shall not be evaluated on nine of the
        same ten episodes, which would make their returns look more alike than they are.
        """
        return int(np.random.SeedSequence((torch.initial_seed(), self.env_steps)).generate_state(1)[0]) % 2**31

    def run_eval_episodes(self, env: VectorEnv, policy: EvalPolicy | None = None) -> TensorDictBase:
        """One deterministic episode of a policy in each environment, `[K, T]`: see `run_episodes`.

        Args:
            policy: None: the current one.
        """
        algorithm = self.trainer.lightning_module
        policy = self.eval_policy() if policy is None else policy

        def act(observation: Tensor, is_init: Tensor) -> Tensor:
            self.on_eval_observation(observation)
            seen = algorithm.normalize(observation.to(algorithm.device))
            return policy(seen, is_init.to(algorithm.device)).cpu()

        limit = self.spec.max_episode_steps or self.env.max_eval_steps
        return run_episodes(env, act, limit, self.evaluated_keys)

    def task_metrics(self, returns: Tensor) -> dict[str, Tensor]:
        """The mean return of each task, from the returns `[K]` of an evaluation; none if there is a single one."""
        tasks = self.env.tasks
        names = [task.rpartition("/")[2] for task in tasks]
        return {f"eval/return/{name}": returns[i :: len(tasks)].mean() for i, name in enumerate(names) if names[1:]}

    def on_eval_observation(self, observation: Tensor) -> None:
        """Receives the raw observations `[K, O]` of every step that `run_eval_episodes` takes; does nothing here."""

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the policy that chooses the actions of evaluation: see `Algorithm.eval_policy`."""
        return self.trainer.lightning_module.eval_policy()

    def record_video(self) -> tuple[np.ndarray, int]:
        """Returns images `[T + 1, h, w, 3]` of a deterministic episode and their rate; keeps random states."""
        random_state = get_random_state()
        images: list[np.ndarray] = []
        env = RecordedEnv(self.env.eval_config(), self.evaluation_seed, images.append)
        try:
            self.run_eval_episodes(env)
            return np.stack(images), round(env.frames_per_second)
        finally:
            env.close()
            set_random_state(random_state)

    def check_video(self) -> None:
        """Raises `OptionError` if the environment cannot draw in this process."""
        require_rendering(self.env.name)
        random_state = get_random_state()
        env = RecordedEnv(self.env.eval_config(), 0, lambda image: None)
        try:
            env.reset()
        finally:
            env.close()
            set_random_state(random_state)
