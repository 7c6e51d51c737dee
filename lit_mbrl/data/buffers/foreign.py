"""A user's own TorchRL replay buffer in the place of the replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensordict import TensorDictBase, is_tensor_collection
from torchrl.data import ReplayBuffer

from lit_mbrl.data.buffers.transitions import STORED
from lit_mbrl.utils.errors import OptionError


class ForeignReplay:
    """Writes frames into a TorchRL replay buffer and samples single transitions from it.

    What a checkpoint has of it is its own `state_dict`, so how exactly a run resumes is the buffer's business:
    TorchRL's resume bit for bit.

    Args:
        buffer: the user's; it gets frames `[n]` with the keys of `Replay`, one after the other in the order of time.
        option: what names it, for messages.
    """

    def __init__(self, buffer: ReplayBuffer, option: str = "data.buffer") -> None:
        self.buffer, self._option = buffer, option

    def __len__(self) -> int:
        return len(self.buffer)

    def extend(self, frames: TensorDictBase) -> None:
        """Appends frames `[num_envs, T]`; copies, since the collector fills its own again."""
        self.buffer.extend(frames.transpose(0, 1).reshape(-1).clone())

    def frames(self) -> TensorDictBase:
        """All frames that are there, `[len(self)]`."""
        return self._checked(self.buffer[:], len(self))

    def sample_transitions(self, count: int) -> TensorDictBase:
        """Transitions `[count]`, as the buffer draws them.

        Raises:
            OptionError: if the buffer gives something else.
        """
        return self._checked(self.buffer.sample(count), count)

    def _checked(self, rows: Any, count: int) -> TensorDictBase:
        keys = set(rows.keys(include_nested=True)) if is_tensor_collection(rows) else set()
        missing = [key for key in STORED if key not in keys]
        if missing or tuple(rows.batch_size) != (count,):
            shape = f"of batch size {list(rows.batch_size)}" if not missing else f"without {missing[0]!r}"
            expected = f"a buffer whose batches are TensorDicts [{count}] of what was written, not a batch {shape}"
            raise OptionError(self._option, type(self.buffer).__name__, expected)
        return rows

    def truncate_running_episodes(self, envs: Iterable[int] | None = None) -> None:
        """Does nothing: a transition stands for itself."""

    # ------------------------------------------------------------------ checkpoint
    def state_dict(self) -> dict[str, Any]:
        """The buffer's own state."""
        return {"buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            OptionError: if the checkpoint has another kind of replay.
        """
        if "buffer" not in state:
            raise OptionError(self._option, type(self.buffer).__name__, "null as in the checkpoint, which has a replay")
        self.buffer.load_state_dict(state["buffer"])
