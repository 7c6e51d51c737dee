"""TorchRL's collector, with a rollout as short as a single environment step deserves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.collectors import Collector

from lit_mbrl.envs import VectorEnv
from lit_mbrl.envs.transition import Transition

_CARRIED = ("observation", "done", "terminated", "truncated", "is_init")


class FrameCollector(Collector):
    """Collects from a `VectorEnv` the frames that a replay stores, and no more.

    TorchRL's own rollout makes half a dozen TensorDicts per step, which take five times as long as a Pendulum's step
    and the policy together. This one gives the policy the same input and takes the same steps and resets, but writes
    what comes out into one TensorDict that it fills again and again: `rollout` returns frames that are valid until the
    next call. Their keys are `observation`, `action` and, in `next`, `observation`, `reward`, `terminated` and
    `truncated`.

    Args:
        env: the environments.
        policy: sets `"action"` in a TensorDict with `"observation"` and `"is_init"`.
        frames_per_batch: steps per rollout, of all environments together.
        clip_actions: the environments get the action cut to [-1, 1]; the frames have the policy's own, whose density
            is known.

    Attributes:
        begun: whether a step has been begun.
    """

    env: VectorEnv

    def __init__(self, env: VectorEnv, policy: Any, frames_per_batch: int, clip_actions: bool = False) -> None:
        super().__init__(
            env,
            policy,
            frames_per_batch=frames_per_batch,
            total_frames=-1,
            trust_policy=True,
            use_buffers=False,
            track_traj_ids=False,
        )
        self._clip_actions = clip_actions
        self.begun = False
        self._early: Transition | None = None  # what came of the step that was begun, if that is known
        # The policy's next input; the flags `done`, `terminated` and `truncated` of a root are always False.
        self._input = env.first_root.select(*_CARRIED).clone()
        self._observation: np.ndarray = self._input["observation"].numpy()
        self._is_init: np.ndarray = self._input["is_init"].numpy()
        steps, num_envs = frames_per_batch // env.config.num_envs, env.config.num_envs
        action = env.action_spec

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(steps, num_envs, *shape, dtype=dtype)  # so that the frames of a step lie side by side

        seen = self._input["observation"]
        root = {
            "observation": empty(*seen.shape[1:], dtype=seen.dtype),
            "action": empty(*action.shape[1:], dtype=action.dtype),
        }
        following = {
            "observation": empty(*seen.shape[1:], dtype=seen.dtype),
            "reward": empty(1),
            "terminated": empty(1, dtype=torch.bool),
            "truncated": empty(1, dtype=torch.bool),
        }
        self._root = {key: value.numpy() for key, value in root.items()}
        self._next = {key: value.numpy() for key, value in following.items()}
        turned = {key: value.transpose(0, 1) for key, value in following.items()}
        self._frames_out = TensorDict(
            {key: value.transpose(0, 1) for key, value in root.items()} | {"next": turned}, [num_envs, steps]
        )
        self._frames_out.lock_()  # filled again and again, by the same tensors

    @torch.no_grad()
    def rollout(self) -> TensorDictBase:
        """Frames `[num_envs, T]`, T steps of every environment."""
        for t in range(len(self._root["action"])):
            if self.begun:  # one step, of which a part has been taken already
                self._store(t, *(self._early or self.env.step_wait()))
                self.begun, self._early = False, None
            else:
                self._store(t, *self.env.advance(self._act(t)))
        return self._frames_out

    @torch.no_grad()
    def step_async(self) -> None:
        """Acts now and lets worker processes step while this one goes on; the next `rollout`, of one step, has it."""
        self.env.step_async(self._act(0))
        self.begun = True

    def wait(self) -> None:
        """Waits for a step that has been begun, but does not take it yet: now the environments have a state to save."""
        if self.begun and self._early is None:
            self._early = self.env.step_wait()

    def _act(self, t: int) -> np.ndarray:
        # `nn.Module.__call__` would only look for hooks.
        action = self.policy.forward(self._input).get("action").detach().numpy()
        self._root["observation"][t] = self._observation
        self._root["action"][t] = action
        return action.clip(-1.0, 1.0) if self._clip_actions else action

    def _store(
        self, t: int, observation: np.ndarray, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> None:
        following = self._next
        following["observation"][t] = observation
        following["reward"][t] = reward
        following["terminated"][t] = terminated
        following["truncated"][t] = truncated
        done = terminated | truncated
        self._is_init[:] = done
        if done.any():
            rows = done.reshape(-1, *[1] * (observation.ndim - 1))
            observation = np.where(rows, self.env.restart(done[:, 0]), observation)
        self._observation[:] = observation

    def get_carrier(self) -> dict[str, Tensor]:
        """The policy's next input; and of a step that has been begun (and settled) its action and what came of it."""
        carrier = {key: self._input[key].clone() for key in _CARRIED}
        if self._early is not None:
            carrier["begun.action"] = torch.from_numpy(self._root["action"][0].copy())
            carrier |= {f"begun.{name}": torch.from_numpy(value) for name, value in self._early._asdict().items()}
        return carrier

    def set_carrier(self, carrier: Mapping[str, Tensor]) -> None:
        """Goes on from what `get_carrier` returned."""
        for key in _CARRIED:
            self._input[key].copy_(carrier[key])
        self.begun = "begun.action" in carrier
        if self.begun:
            self._root["observation"][0] = self._observation
            self._root["action"][0] = carrier["begun.action"].numpy()
            self._early = Transition(*(carrier[f"begun.{name}"].numpy() for name in Transition._fields))
