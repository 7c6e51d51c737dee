"""When the model is fitted and rolled out, and what batches are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_mbrl.algorithms import MBPO, PPO, SAC
from lit_mbrl.data import OffPolicy
from lit_mbrl.utils.errors import OptionError
from tests.helpers.dyna import DYNA, EVENTS, IMAGINED, make, make_dyna
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts


class Batches(Callback):
    """Keeps the batch of every round."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.seen.append(batch["transitions"])


@pytest.mark.parametrize(("name", "ratio"), [("mbpo_known", 0.05), ("mbpo_known", 0.4), ("memr_known", 0.4)])
def test_every_batch_has_exactly_its_share_of_real_rows(name: str, ratio: float) -> None:
    batches = Batches()
    algorithm, data = make(name, real_ratio=ratio, batch_size=21)
    fit(algorithm, data, batches)
    real = algorithm.real_rows(data.batch_size)
    assert real == int(21 * ratio) == [1, 8][ratio == 0.4]
    for batch in batches.seen:
        imagined = batch["next", "reward"].squeeze(-1) == IMAGINED
        assert imagined.tolist() == [False] * real + [True] * (21 - real)
    assert len(batches.seen) == 36


@pytest.mark.parametrize(("ratio", "size", "rows"), [(0.05, 256, 12), (0.29, 100, 29), (0.0, 8, 0), (0.99, 8, 7)])
def test_real_rows_are_counted_without_rounding_errors(ratio: float, size: int, rows: int) -> None:
    assert MBPO(real_ratio=ratio).real_rows(size) == rows


@pytest.mark.parametrize("name", ["mbpo_known", "memr_known"])
def test_imagined_data_never_enter_the_replay(name: str) -> None:
    algorithm, data = make(name, rollout_schedule=[0, 0, 1, 1])
    fit(algorithm, data)
    frames = data.replay.frames()
    assert data.replay.written == data.env_steps == len(frames) == 60
    assert (frames["next", "reward"] <= 0).all()  # Pendulum's
    assert len(data.buffers["model"]) > 0 and (data.buffers["model"].rows()["next", "reward"] == IMAGINED).all()


class Events(MBPO):
    """Writes down when it is asked for what."""

    def fit_model(self, replay: Any) -> dict[str, float]:
        self.events.append(("fit", self.env_steps, len(replay)))
        return super().fit_model(replay)

    def rollout(self, observation: torch.Tensor, length: int) -> Any:
        self.events.append(("rollout", self.env_steps, length))
        return super().rollout(observation, length)

    def on_train_batch_end(self, *args: Any) -> None:
        self.events.append(("round", self.env_steps, self.train_steps))


def events(**options: Any) -> list[tuple[str, int, int]]:
    frames = {name: options.pop(name) for name in ("frames_per_batch",) if name in options}
    factory = DYNA["mbpo_known"]().world_model_factory
    algorithm = Events(world_model=factory, hidden_sizes=[8], model_max_epochs=1, **(EVENTS | options))
    algorithm.events = []
    fit(algorithm, make_dyna(**frames))
    return algorithm.events


def test_fit_step_rollout_update_in_this_order() -> None:
    expected: list[tuple[str, int, int]] = []
    for steps in range(24, 60):  # the warm-up is 24 steps; a fit and a rollout every 8
        if (steps - 24) % 8 == 0:
            expected += [("fit", steps, steps), ("rollout", steps + 1, 1)]
        expected.append(("round", steps + 1, steps - 23))
    assert events() == expected


def test_rollouts_have_a_frequency_of_their_own() -> None:
    found = events(rollout_freq=4)
    assert [steps for kind, steps, _ in found if kind == "rollout"] == list(range(25, 60, 4))
    assert [steps for kind, steps, _ in found if kind == "fit"] == list(range(24, 60, 8))


def test_frames_that_straddle_the_events() -> None:
    """Frames come five at a time: 0-5 ... 20-25, in which the warm-up of 24 ends, and so on."""
    found = events(frames_per_batch=5)
    # Clocks 0 (24, in the middle of the frames), then those at which a multiple of 8 has been passed.
    assert [steps for kind, steps, _ in found if kind == "fit"] == [25, 35, 40, 50]
    assert [steps for kind, steps, _ in found if kind == "rollout"] == [25, 40, 45, 55]
    first = next(i for i, event in enumerate(found) if event[0] == "round")
    assert {kind for kind, *_ in found[:first]} == {"fit", "rollout"}


def test_schedule_is_mbpo_s() -> None:
    algorithm = MBPO(rollout_schedule=[20, 150, 1, 15])
    for epoch in range(200):
        share = min(max((epoch - 20) / 130, 0.0), 1.0)
        assert algorithm.rollout_length(epoch) == int(share * 14 + 1 + 1e-9)  # the code's formula
    assert algorithm.longest_rollout == 15
    assert MBPO(rollout_schedule=[5, 5, 1, 3]).rollout_length(5) == 1
    assert MBPO(rollout_schedule=[5, 5, 1, 3]).rollout_length(6) == 3


def test_buffer_grows_with_the_schedule() -> None:
    # Epochs of 16 steps with two rollouts of 20 states each.
    algorithm, data = make("mbpo_known", rollout_schedule=[0, 2, 1, 3], retain_epochs=2)
    assert [algorithm.model_capacity(algorithm.rollout_length(epoch)) for epoch in range(3)] == [80, 160, 240]
    fit(algorithm, data)
    assert data.buffers["model"].capacity == 240
    assert DYNA["mbpo"](model_epoch=4).model_capacity(1) == 20  # never less than one rollout


def test_first_states_of_rollouts_are_real() -> None:
    algorithm, data = make("mbpo_known")
    fit(algorithm, data)
    real = {tuple(row) for row in data.replay.frames()["observation"].tolist()}
    assert {tuple(row) for row in data.buffers["model"].rows()["observation"].tolist()} <= real


# ---------------------------------------------------------------------- resume
def state_of(algorithm: MBPO, data: OffPolicy) -> dict[str, torch.Tensor]:
    state = everything(algorithm, data)
    buffers = {name: buffer.state_dict() for name, buffer in data.buffers.items()}
    for name, rows in buffers["model"]["frames"].items():
        state[f"buffer.{name}"] = rows
    last = data.schedule.state_dict()["last"]
    state["events"] = torch.tensor([last["fit"], last["rollout"], buffers["model"]["cursor"]])
    if "priorities" in buffers:
        state["priorities"] = buffers["priorities"]["mass"]
    for name, optimizer in algorithm.fitter.optimizers.items():
        for p, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{p}.{key}": value for key, value in values.items()}
    return state


# A fit and a rollout follow round 8.
@pytest.mark.parametrize(
    ("name", "rounds"),
    [("mbpo", 8), ("mbpo", 9), ("mbpo_recurrent", 17), ("memr", 8), ("memr", 9), ("memr_code", 17)],
)
def test_resume_gives_the_same_bits(name: str, rounds: int, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    options: dict[str, Any] = {"rollout_schedule": [0, 2, 1, 2]} if name.startswith("mbpo") else {}
    whole, whole_data = make(name, **options)
    fit(whole, whole_data)
    first, first_data = make(name, **options)
    with pytest.raises(Stop):
        fit(first, first_data, SaveAndStop(path, rounds))
    second, second_data = make(name, **options)
    fit(second, second_data, seed=12345, ckpt_path=path)
    expected, found = state_of(whole, whole_data), state_of(second, second_data)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []
    assert whole.progress_metrics()["time/model_rollouts"] == second.progress_metrics()["time/model_rollouts"]


def test_resume_with_a_full_replay_and_environments_side_by_side(tmp_path: Path) -> None:
    path, options = tmp_path / "run.ckpt", {"num_envs": 2, "frames_per_batch": 4, "capacity": 30}
    whole, whole_data = make("memr", **options)
    fit(whole, whole_data)
    first, first_data = make("memr", **options)
    with pytest.raises(Stop):
        fit(first, first_data, SaveAndStop(path, 15))
    second, second_data = make("memr", **options)
    fit(second, second_data, ckpt_path=path)
    expected, found = state_of(whole, whole_data), state_of(second, second_data)
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []


def test_what_is_not_logged_yet_is_in_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    first, data = make("mbpo")
    with pytest.raises(Stop):
        fit(first, data, SaveAndStop(path, 9))  # rounds 10, 20, ... are logged
    metrics = torch.load(path, weights_only=True)["notes"]
    assert {"model/epochs", "model/holdout_dynamics", "rollout/length"} <= metrics.keys()


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"model_train_freq": 0}, "model.model_train_freq"),
        ({"rollout_freq": 0}, "model.rollout_freq"),
        ({"rollout_batch_size": 0}, "model.rollout_batch_size"),
        ({"rollout_schedule": (20, 10, 1, 1)}, "model.rollout_schedule"),
        ({"rollout_schedule": (0, 10, 0, 1)}, "model.rollout_schedule"),
        ({"model_epoch": 0}, "model.model_epoch"),
        ({"retain_epochs": 0}, "model.retain_epochs"),
        ({"real_ratio": 1.0}, "model.real_ratio"),
        ({"real_ratio": float("nan")}, "model.real_ratio"),
        ({"learning_starts": 1}, "data.learning_starts"),
        ({"name": "memr", "segments": 0}, "model.segments"),
        ({"name": "memr", "rollout_schedule": (0, 1, 1, 2)}, "model.rollout_schedule"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        algorithm, data = make(**({"name": "mbpo"} | options))
        data.check_algorithm(algorithm)


def test_algorithms_and_data_that_do_not_fit_are_refused() -> None:
    for name in ("mbpo", "memr"):
        with pytest.raises(OptionError, match="lit_mbrl.data.OffPolicy for M.*, which learns from transitions"):
            make_rollouts().check_algorithm(DYNA[name]())
        make_data().check_algorithm(DYNA[name]())
    with pytest.raises(OptionError, match="lit_mbrl.data.OnPolicy for PPO, which learns from rollouts"):
        make_data().check_algorithm(PPO())


def test_an_algorithm_that_imagines_no_data_has_no_buffer() -> None:
    data = make_data()
    data.check_algorithm(DYNA["memr"]())
    assert data.buffer_specs.keys() == {"model", "priorities"}
    data.check_algorithm(SAC())
    assert not data.buffer_specs


def test_several_devices_are_refused() -> None:
    with pytest.raises(OptionError, match="trainer.devices"):
        DYNA["mbpo"]().check_devices(2)


def test_a_buffer_that_does_not_fit_is_refused() -> None:
    algorithm, data = make("mbpo", rollout_batch_size=10**12)
    data.check_algorithm(algorithm)
    with pytest.raises(OptionError, match="GB"):
        data.check()
