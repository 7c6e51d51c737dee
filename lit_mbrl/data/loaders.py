"""Loaders that Lightning sees of a data module that collects, and the collector's policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

if TYPE_CHECKING:
    from lit_mbrl.envs import VectorEnv


class CollectorPolicy(TensorDictModuleBase):
    """The collector's policy: uniformly random during the warm-up, then the algorithm's exploration."""

    def __init__(self, algorithm: Any, env: VectorEnv) -> None:
        super().__init__()
        self.in_keys, self.out_keys = ["observation", "is_init"], ["action"]
        self.random = True
        # Hidden from nn.Module: the collector shall neither copy nor move the algorithm.
        object.__setattr__(self, "_algorithm", algorithm)
        object.__setattr__(self, "_env", env)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.random:
            return self._env.rand_action(tensordict)
        algorithm, device = self._algorithm, self._algorithm.device
        observation: Tensor = algorithm.normalize(tensordict["observation"].to(device))
        tensordict["action"] = algorithm.explore(observation, tensordict["is_init"].to(device)).cpu()
        return tensordict


class TrainLoader:
    """An epoch's loader. It knows its length: without one Lightning would fetch, and so step, one batch too early.

    Args:
        data: a `data.base.EnvDataModule`.
        end: training steps since the start of the run at which the epoch ends.
    """

    def __init__(self, data: Any, end: int) -> None:
        self._data, self._end, self._length = data, end, end - data.train_steps

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, TensorDictBase]]:
        return self._data.iterate_train_steps(self._end)


class EvalLoader:
    """A loader of the evaluation episodes: a batch for each of the data module's `evaluations`."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data.evaluations())

    def __iter__(self) -> Iterator[TensorDictBase]:
        for name in self._data.evaluations():
            yield self._data.evaluate(name)
