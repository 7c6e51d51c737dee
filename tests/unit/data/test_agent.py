"""The contract of data modules and algorithms: who is called when, and what is kept for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tensordict import TensorDictBase

from lit_mbrl import data as modules
from lit_mbrl.algorithms import PPO, SAC
from lit_mbrl.data.agent import SERVED_BY, Agent, Experience
from lit_mbrl.data.buffers.spec import BufferSpec
from lit_mbrl.data.schedule import Schedule
from lit_mbrl.training.algorithm import Algorithm
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data, make_rollouts


class Called:
    """Writes down what it is asked for, at which environment step."""

    calls: list[tuple[str, int]]

    def before_collect(self, data: Any) -> None:
        self.calls.append(("before", data.env_steps))
        super().before_collect(data)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        self.calls.append(("after", data.env_steps))
        super().after_collect(data, frames)

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        self.calls.append(("sample", data.env_steps))
        return super().sample(data)


class CalledSAC(Called, SAC):
    """Off-policy."""


class CalledPPO(Called, PPO):
    """On-policy."""


def test_off_policy_calls() -> None:
    algorithm = CalledSAC(hidden_sizes=[8])
    algorithm.calls = []
    fit(algorithm, make_data(total_frames=28, frames_per_batch=2, utd_ratio=1.5))
    warm_up = [(name, at) for step in range(0, 24, 2) for name, at in (("before", step), ("after", step + 2))]
    rounds = [
        ("before", 24),
        ("after", 26),
        *[("sample", 26)] * 3,
        ("before", 26),
        ("after", 28),
        *[("sample", 28)] * 3,
    ]
    assert algorithm.calls == warm_up + rounds


def test_on_policy_calls() -> None:
    algorithm = CalledPPO(hidden_sizes=[8])
    algorithm.calls = []
    fit(algorithm, make_rollouts(total_frames=40))
    one = [("before", 0), ("after", 20), *[("sample", 20)] * 10]
    assert algorithm.calls == one + [(name, at + 20) for name, at in one]


def test_work_is_due_after_the_warm_up_and_whenever_its_period_has_passed() -> None:
    schedule, done = Schedule(), []
    for clock in (None, None, 0, 0, 3, 8, 9, 15, 31, 32):
        schedule.clock = clock
        if schedule.due("fit", every=8):
            done.append(clock)
        if schedule.due("other", every=16):
            done.append((clock,))
    assert done == [0, (0,), 8, 31, (31,), 32, (32,)]
    again = Schedule()
    again.load_state_dict(schedule.state_dict())
    again.clock = 39
    assert not again.due("fit", every=8) and again.due("new", every=8)


class Counts:
    """A buffer of somebody's own."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(1, device=device)

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts = state["counts"]


class Counting(SAC):
    """Keeps a buffer of its own and takes a note now and then."""

    def add_buffers(self, data: Any) -> None:
        data.buffer_specs["counts"] = BufferSpec(Counts)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        super().after_collect(data, frames)
        data.buffers["counts"].counts += frames.numel()
        if data.schedule.due("count", every=7):
            self.note({"counts": float(data.buffers["counts"].counts)})


def test_buffers_schedule_and_notes_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    def run(*callbacks: Any, **options: Any) -> tuple[Any, Any]:
        algorithm, data = Counting(hidden_sizes=[8]), make_data(total_frames=50)
        fit(algorithm, data, *callbacks, log_every_n_steps=1000, **options)
        return algorithm, data

    whole, data = run()
    with pytest.raises(Stop):
        run(SaveAndStop(tmp_path / "run.ckpt", 9))
    resumed, more = run(ckpt_path=tmp_path / "run.ckpt")
    assert more.buffers["counts"].counts.item() == data.buffers["counts"].counts.item() == 50
    assert resumed._notes == whole._notes == {"counts": 46.0}  # 24 + 21, and the step that is being taken
    assert more.schedule.state_dict() == data.schedule.state_dict() == {"last": {"count": 21}}


def test_algorithms_have_all_that_data_modules_ask_for() -> None:
    asked = {name for name in vars(Agent) if not name.startswith("_")} | {"learns_from"}
    assert {"before_collect", "after_collect", "sample"} < asked
    assert [name for name in asked if not hasattr(Algorithm, name)] == []
    assert set(SERVED_BY) == set(get_args(Experience))
    for kind, path in SERVED_BY.items():
        assert getattr(modules, path.rpartition(".")[2]).serves == kind
