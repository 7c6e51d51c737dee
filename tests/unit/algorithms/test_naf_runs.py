"""When NAF's dynamics are fitted and rolled out, what training steps learn from, and resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict

from lit_mbrl.algorithms import NAF
from lit_mbrl.data import OffPolicy
from lit_mbrl.data.buffers.relabelling import Hindsight
from lit_mbrl.envs import EnvConfig, describe
from lit_mbrl.utils.errors import OptionError
from tests.helpers.dyna import IMAGINED
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

# Runs are of 60 environment steps, 24 of them warm-up; episodes have 12.
SMALL = {"hidden_sizes": [8], "rollout_length": 2, "rollout_freq": 4, "rollout_batch_size": 6, "episodes_per_fit": 2}


def make(**options: Any) -> NAF:
    return NAF(**(SMALL | options))


class Events(NAF):
    """Writes down when it is asked for what, and marks what it imagines."""

    def fit_dynamics(self, replay: Any) -> None:
        self.events.append(("fit", self.env_steps))
        super().fit_dynamics(replay)

    def imagine(self, *starts: torch.Tensor) -> Iterator[TensorDict]:
        self.events.append(("rollout", self.env_steps))
        for frames in super().imagine(*starts):
            frames["next", "reward"] = torch.full_like(frames["next", "reward"], IMAGINED)
            yield frames

    def log_training(self) -> None:
        self.logged.append(self.train_steps)
        super().log_training()


class Batches(Callback):
    """Keeps, of every training step, its environment step, the kind of its batch, and whether the target moved."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, bool]] = []
        self.target: torch.Tensor | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        frames, target = batch["transitions"], pl_module.value_target[0].weight.clone()
        kind = "none" if frames is None else "real"
        if frames is not None:
            imagined = frames["next", "reward"] == IMAGINED
            assert len(frames) == 8 and bool(imagined.all()) == bool(imagined.any())
            kind = "imagined" if imagined.all() else "real"
        before, self.target = self.target, target
        self.seen.append((pl_module.env_steps, kind, before is not None and not torch.equal(before, target)))


def run(**options: Any) -> tuple[Events, Batches, OffPolicy]:
    algorithm, batches, data = Events(**(SMALL | options)), Batches(), make_data(utd_ratio=3)
    algorithm.events, algorithm.logged = [], []
    fit(algorithm, data, batches)
    return algorithm, batches, data


def kinds(until: int, last: int = 60) -> list[tuple[int, str]]:
    """Kinds of batches if there are imagined transitions from environment step 25 or `until` on, before `last`."""
    there = {steps: "imagined" if until <= steps < last else "none" for steps in range(25, 61)}
    return [(steps, kind) for steps in range(25, 61) for kind in ("real", there[steps], there[steps])]


def test_fits_follow_episodes_and_rollouts_environment_steps() -> None:
    algorithm, batches, data = run()
    # A rollout every four steps after the warm-up, a fit after every second episode.
    expected = [("rollout", steps) for steps in range(25, 60, 4)] + [("fit", 24), ("fit", 48)]
    assert sorted(algorithm.events, key=lambda event: event[1]) == sorted(expected, key=lambda event: event[1])
    assert [(steps, kind) for steps, kind, _ in batches.seen] == kinds(25, last=61)
    assert len(data.buffers["imagined"]) == 9 * 2 * 6 == algorithm.progress_metrics()["time/model_rollouts"]
    assert not (data.replay.frames()["next", "reward"] == IMAGINED).any()


def test_before_the_first_fit_training_steps_are_real_and_targets_move_with_them() -> None:
    algorithm, batches, _ = run(episodes_per_fit=3)
    assert algorithm.events[0] == ("fit", 36) and algorithm.events[1] == ("rollout", 37)
    assert [(steps, kind) for steps, kind, _ in batches.seen] == kinds(37, last=61)
    assert [moved for _, _, moved in batches.seen][1:] == [kind != "none" for _, kind, _ in batches.seen][1:]


def test_imagination_is_switched_off() -> None:
    algorithm, batches, _ = run(imagination_steps=40)
    assert max(steps for _, steps in algorithm.events) == 37 and ("fit", 24) in algorithm.events
    assert [(steps, kind) for steps, kind, _ in batches.seen] == kinds(25, last=40)


@pytest.mark.parametrize("updates", [0, 1])
def test_the_number_of_updates_on_imagined_batches_is_an_option(updates: int) -> None:
    _, batches, _ = run(imagined_updates=updates)
    pattern = ["real"] + ["imagined"] * updates
    assert [kind for _, kind, _ in batches.seen] == (pattern * 108)[:108]


@pytest.mark.parametrize("updates", [0, 1, 4])
def test_what_is_logged_is_of_real_batches(updates: int) -> None:
    algorithm, batches, _ = run(imagined_updates=updates)  # logs every ten training steps
    real = [number for number, (_, kind, _) in enumerate(batches.seen, 1) if kind == "real"]
    assert algorithm.logged == [min(s for s in real if s >= at) for at in range(10, 101, 10) if real[-1] >= at]


def test_without_rollouts_nothing_is_kept_and_all_batches_are_the_replay_s() -> None:
    algorithm, data = NAF(hidden_sizes=[8]), make_data()
    fit(algorithm, data)
    assert data.buffers == {} and not any("dynamics" in name for name in algorithm.state_dict())


# ---------------------------------------------------------------------- resume
def state_of(algorithm: NAF, data: OffPolicy) -> dict[str, torch.Tensor]:
    state = everything(algorithm, data) | {"due": torch.tensor(data.schedule.state_dict()["last"]["rollout"])}
    buffer = data.buffers["imagined"].state_dict()
    return state | {f"imagined.{name}": rows for name, rows in (buffer["frames"] | {"at": buffer["cursor"]}).items()}


@pytest.mark.parametrize(
    ("train_steps", "options", "of_data"),
    [
        (1, {}, {}),
        (40, {"exploration": "precision", "reward": "learned", "initial_modes": 2}, {}),
        (72, {"imagination_steps": 50}, {}),  # a fit comes next
        (50, {"exploration": "gaussian"}, {"num_envs": 2, "frames_per_batch": 4}),
    ],
)
def test_resume_gives_the_same_bits(
    train_steps: int, options: dict[str, Any], of_data: dict[str, Any], tmp_path: Path
) -> None:
    path, of_data = tmp_path / "run.ckpt", {"utd_ratio": 3} | of_data
    whole, whole_data = make(normalize_observations=True, **options), make_data(**of_data)
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(make(normalize_observations=True, **options), make_data(**of_data), SaveAndStop(path, train_steps))
    second, second_data = make(normalize_observations=True, **options), make_data(**of_data)
    fit(second, second_data, seed=12345, ckpt_path=path)
    expected, found = state_of(whole, whole_data), state_of(second, second_data)
    assert expected.keys() == found.keys() and "module.dynamics.state" in found
    same = [torch.equal(torch.as_tensor(expected[key]).float(), torch.as_tensor(found[key]).float()) for key in found]
    assert [key for key, equal in zip(found, same, strict=True) if not equal] == []
    assert whole.progress_metrics()["time/model_rollouts"] == second.progress_metrics()["time/model_rollouts"]


# ---------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rollout_length": 0, "imagined_updates": 2}, r"--model.imagined_updates=2: expected 0 or null while"),
        ({"initial_modes": 3}, r"--model.initial_modes=3: expected at most model.episodes_per_fit=2"),
        (
            {"precision_scale": 0.1},
            r"--model.precision_scale=0.1: expected left out unless model.exploration is precision",
        ),
        ({"exploration": "gaussian", "precision_starts": 9}, r"--model.precision_starts=9: expected left out unless"),
        ({"exploration": "uniform"}, r"--model.exploration=uniform"),
        ({"rollout_length": -1}, r"--model.rollout_length=-1: expected an integer >= 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        make(**options)


def test_an_environment_that_dynamics_cannot_have_is_refused() -> None:
    endless = describe(EnvConfig("Pendulum-v1"))
    object.__setattr__(endless, "max_episode_steps", None)
    with pytest.raises(OptionError, match=r"--data.env.max_episode_steps=None: expected a number"):
        make().check(endless)
    NAF().check(endless)
    with pytest.raises(OptionError, match=r"--model.reward=known: expected learned or auto"):
        make(reward="known").check(describe(EnvConfig("MountainCarContinuous-v0")))


def test_a_replay_that_is_too_small_or_relabels_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--data.capacity=59: expected at least 60: the episodes of two fits"):
        fit(make(), make_data(capacity=59))
    fit(make(), make_data(capacity=60))
    with pytest.raises(OptionError, match="data.hindsight"):
        fit(make(), make_data(hindsight=Hindsight()))
    with pytest.raises(OptionError, match=r"--trainer.devices=2: expected 1 with model.rollout_length"):
        make().check_devices(2)
    NAF().check_devices(2)
