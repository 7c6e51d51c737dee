"""Callbacks that come with every run have no hooks inside a round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.profilers import PassThroughProfiler

from callbacks import Checkpoint, GracefulStop, ProgressBar
from lit_mbrl.algorithms import SAC
from tests.helpers.runs import fit, make_data


class Names(PassThroughProfiler):
    """Remembers what it is asked to profile."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    @contextmanager
    def profile(self, action_name: str) -> Iterator[None]:
        self.seen.append(action_name)
        yield


def test_lightning_calls_them_at_both_ends_of_a_round_only(tmp_path: Path) -> None:
    profiler = Names()
    options = {"default_root_dir": tmp_path, "enable_checkpointing": None, "profiler": profiler}
    fit(SAC(hidden_sizes=[8]), make_data(), ProgressBar(), GracefulStop(), Checkpoint(), **options)
    # The profiler has Lightning's own loop run, and not the leaner one of `data.round_loop`.
    hooks = [name.rpartition(".")[2] for name in profiler.seen if name.startswith("[Callback]")]
    assert hooks.count("on_train_batch_end") == 4 * 36  # with SoftTargetUpdate, in every round
    assert not {"on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"} & set(
        hooks
    )
