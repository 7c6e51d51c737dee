"""On-policy data: rollouts of the current policy, each cut into shuffled minibatches for a number of epochs.

    environments -> T steps of N -> Algorithm.after_collect (values, advantages) -> [shuffle -> minibatches] x K

One Lightning batch, one training step, is one gradient step on one minibatch. A rollout of `T N` frames serves
`K T N / batch_size` training steps, in which each of its frames is in exactly `K` minibatches, once per epoch; then it
is thrown away, and the next one is collected with the policy as it is by then.

On several devices each rank has its own environments, its own rollout and its own shuffles; a minibatch is shared out
among them, gradients are averaged, and all take the same training steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.data.agent import Experience
from lit_mbrl.data.base import EnvDataModule
from lit_mbrl.data.buffers.spec import BufferSpec
from lit_mbrl.data.buffers.transitions import Replay, check_memory
from lit_mbrl.data.evaluated import EvalPolicy
from lit_mbrl.data.schedule import RolloutSchedule
from lit_mbrl.envs import VectorEnv
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.malloc import keep_freed_memory
from lit_mbrl.utils.options import options
from lit_mbrl.utils.random_state import get_random_state, set_random_state
from lit_mbrl.utils.types import PositiveInt


@options
class OnPolicy(EnvDataModule):
    """Collects rollouts and serves minibatches of them.

    The run ends with the last rollout that fits into `total_frames`; evaluations wait for the end of a rollout.
    """

    # Options that a resumed run cannot change: it may be in the middle of a rollout.
    fixed_on_resume: ClassVar[tuple[str, ...]] = (
        *EnvDataModule.fixed_on_resume,
        "rollout_steps",
        "num_epochs",
        "batch_size",
    )

    serves: ClassVar[Experience] = "rollouts"
    unbounded_actions: ClassVar[bool] = True
    # Images of a whole evaluation would take hundreds of megabytes, and nobody looks at them.
    evaluated_keys: ClassVar[Sequence[Any]] = ("action", *(("next", k) for k in ("reward", "terminated", "truncated")))

    epoch_frames: PositiveInt = 10_000
    """Environment steps between evaluations, which wait for the end of a rollout."""
    rollout_steps: PositiveInt = 256
    """Steps of each environment in a rollout: T."""
    num_epochs: PositiveInt = 10
    """Passes over a rollout: K."""
    batch_size: PositiveInt = 64
    """Frames in a minibatch, of all devices together; divides the frames of a rollout."""
    eval_actions: Literal["mode", "sample"] = "mode"
    """Of evaluation: the policy's most probable ones (`"mode"`), or drawn from it (`"sample"`), as Procgen's paper has
    them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        frames = self.frames_per_batch = self.rollout_steps * self.env.num_envs
        # `split_across_ranks` says what the number of devices makes of it.
        train_steps = self.num_epochs * max(frames // self.batch_size, 1)
        self.update_schedule = RolloutSchedule(self.total_frames, self.epoch_frames, frames, train_steps)
        self.rollout: TensorDictBase | None = None  # `[T, N]`, as the algorithm's `after_collect` has prepared it
        self._order: Tensor | None = None  # of the frames in the running epoch

    # ------------------------------------------------------------------ set-up
    @property
    def minibatches(self) -> int:
        """Minibatches in an epoch over a rollout."""
        return self.frames_per_batch * distributed.world_size() // self.batch_size

    @property
    def rollout_start(self) -> int:
        """Environment steps at the start of the running rollout."""
        return self.env_steps - self.update_schedule.frames_per_rollout

    @property
    def begins_rollout(self) -> bool:
        """Returns whether the running training step is the first one after a rollout."""
        return self.update_schedule.position() == 0

    def split_across_ranks(self, world_size: int) -> None:
        """Fits the clock to the number of devices, each of which has a rollout."""
        frames = self.frames_per_batch * world_size
        require(
            self.batch_size % world_size == 0 and frames % self.batch_size == 0,
            "data.batch_size",
            self.batch_size,
            f"a divisor of the {frames} frames of a rollout (data.rollout_steps x data.env.num_envs"
            + (f" x {world_size} devices), and a multiple of {world_size}" if world_size > 1 else ")"),
        )
        require(
            self.total_frames >= frames,
            "data.total_frames",
            self.total_frames,
            f"at least a rollout, data.rollout_steps x data.env.num_envs = {frames} frames",
        )
        self.update_schedule.set_rollout(frames, self.num_epochs * (frames // self.batch_size))

    def check(self, directory: str = ".") -> None:
        """Raises `OptionError` for an environment that cannot be made or a rollout that cannot fit. Cheap."""
        spec = self.spec
        observation = spec.observation_dim * (1 if spec.pixels else 4)
        size = self.frames_per_batch * (3 * observation + 8 * spec.action_dim + 64)
        check_memory(size, "memory", directory, "data.rollout_steps")
        for buffer in self.buffer_specs.values():
            check_memory(buffer.nbytes, "memory", directory, buffer.option)

    def allocate(self) -> None:
        """Prepares for the large activations of images, if there are any."""
        if self.spec.pixels:
            keep_freed_memory()

    def add_replay(self, name: str, capacity: int, option: str) -> None:
        """Asks for a replay of transitions beside the rollouts, `buffers[name]` once collection begins.

        Args:
            capacity: transitions kept, which are in every checkpoint.
            option: what to lower if it does not fit into memory.
        """
        spec = self.spec
        observation = spec.observation_dim * (1 if spec.pixels else 4)
        nbytes = capacity * (2 * observation + 8 * (1 if spec.discrete else spec.action_dim) + 6)
        text = f"{capacity:,} transitions"
        envs = self.env.num_envs
        self.buffer_specs[name] = BufferSpec(lambda device: Replay(capacity, envs), nbytes, text, option)

    # ------------------------------------------------------------------ training batches
    def collect(self) -> None:
        """Takes a rollout (per rank), of which the algorithm makes `rollout`."""
        self._policy.random = False
        self.schedule.clock = self.env_steps
        self.agent.before_collect(self)
        self.agent.after_collect(self, self.collect_transitions())

    def minibatch_index(self) -> Tensor:
        """Returns this rank's indices `[B]` into the rollout for this training step; shuffled in each epoch."""
        position = self.update_schedule.position() % self.minibatches
        if position == 0:
            self._order = torch.randperm(self.frames_per_batch).to(self.rollout.device or "cpu")
        size = self.batch_size // distributed.world_size()
        return self._order[position * size : (position + 1) * size]

    # ------------------------------------------------------------------ evaluation
    def run_eval_episodes(self, env: VectorEnv, policy: EvalPolicy | None = None) -> TensorDictBase:
        """See `EvaluationMixin.run_eval_episodes`. Draws and start states follow from the evaluation's seed."""
        if self.eval_actions == "mode":
            return super().run_eval_episodes(env, policy)
        random_state = get_random_state()
        torch.manual_seed(self.evaluation_seed)
        episodes = super().run_eval_episodes(env, policy)
        set_random_state(random_state)
        return episodes

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """See `EvaluationMixin.eval_policy`."""
        return super().eval_policy() if self.eval_actions == "mode" else self._draw

    def _draw(self, observation: Tensor, is_init: Tensor) -> Tensor:
        action = self.trainer.lightning_module.explore(observation, is_init)
        return action if self.spec.discrete else action.clamp(-1.0, 1.0)

    # ------------------------------------------------------------------ checkpoint
    def _own_state(self) -> dict[str, Any]:
        state = super()._own_state()
        if self.collector is not None and self.update_schedule.within_rollout():
            state["rollout"] = {"order": self._order, "frames": dict(self.rollout.items())}
        return state

    def load_data(self, own: dict[str, Any]) -> None:
        """The rollout in whose middle the checkpoint was written; at the end of one there is nothing to keep."""
        if "rollout" in own:
            frames = own["rollout"]["frames"]
            device = self.trainer.strategy.root_device
            self.rollout = TensorDict(frames, [self.rollout_steps, self.env.num_envs]).to(device)
            self._order = own["rollout"]["order"].to(device)
