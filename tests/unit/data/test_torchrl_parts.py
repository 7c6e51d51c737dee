"""A user's own TorchRL environment, transform, sampler and replay buffer in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import MBPO, PPO, SAC, SACSVG
from lit_mbrl.algorithms.sac import SAC as Learner
from lit_mbrl.app.cli import main
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC as RUN
from tests.helpers.command_line import load, rows
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data, make_rollouts

PARTS = "tests.helpers.torchrl_parts"
WITHOUT_REPLACEMENT = "torchrl.data.SamplerWithoutReplacement"
NEWEST = {"class_path": f"{PARTS}.Newest", "init_args": {"count": 5}}
NESTED = {
    "class_path": "torchrl.data.TensorDictReplayBuffer",
    "init_args": {
        "storage": {"class_path": "torchrl.data.LazyTensorStorage", "init_args": {"max_size": 40}},
        "sampler": {"class_path": "torchrl.data.RandomSampler"},
    },
}
OWN = {"class_path": f"{PARTS}.make_buffer", "init_args": {"capacity": 40}}


def weights(algorithm: SAC) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in algorithm.state_dict().items()}


@pytest.mark.parametrize("options", [{"sampler": WITHOUT_REPLACEMENT}, {"sampler": NEWEST}, {"buffer": NESTED}])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_run_resumes_exactly(options: dict[str, Any], num_envs: int, tmp_path: Path) -> None:
    options = options | {"num_envs": num_envs, "frames_per_batch": num_envs}
    whole = SAC(hidden_sizes=[8])
    fit(whole, make_data(**options))
    path = tmp_path / "half.ckpt"
    with pytest.raises(Stop):
        fit(SAC(hidden_sizes=[8]), make_data(**options), SaveAndStop(path, 17))
    resumed = SAC(hidden_sizes=[8])
    fit(resumed, make_data(**options), ckpt_path=path, seed=1)
    ours, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_sampler_draws_the_transitions() -> None:
    data = make_data(sampler=NEWEST, capacity=60)
    fit(SAC(hidden_sizes=[8]), data)
    newest = data.replay.frames()["observation"][-5:]
    drawn = data.replay.sample_transitions(64)["observation"]
    assert (drawn.unsqueeze(1) == newest).all(-1).any(1).all()
    assert len(drawn.unique(dim=0)) == 5


def test_the_buffer_takes_the_replay_s_place() -> None:
    data, plain = (make_data(learning_starts=59, **options) for options in ({"buffer": OWN}, {}))
    fit(SAC(hidden_sizes=[8]), data)
    fit(SAC(hidden_sizes=[8]), plain)
    assert len(data.replay) == 40 and len(plain.replay) > 40
    first = plain.replay.frames()
    assert torch.equal(data.replay.frames()["observation"][:20], first["observation"][40:60])
    assert data.replay.sample_transitions(3).batch_size == (3,)


@pytest.mark.parametrize(
    ("algorithm", "options", "expected"),
    [
        (SACSVG(hidden_sizes=[8]), {"sampler": NEWEST}, "data.sampler=.*null for SACSVG, which reads sequences"),
        (SACSVG(hidden_sizes=[8]), {"buffer": OWN}, "data.buffer=.*null for SACSVG, which reads sequences"),
        (MBPO(hidden_sizes=[8]), {"buffer": OWN}, "data.buffer=.*null for MBPO, whose model"),
        (SAC(hidden_sizes=[8]), {"buffer": OWN, "sampler": NEWEST}, "data.sampler=.*null beside data.buffer"),
        (SAC(hidden_sizes=[8]), {"buffer": OWN, "storage": "memmap"}, "data.storage=.*null beside data.buffer"),
        (SAC(hidden_sizes=[8]), {"buffer": f"{PARTS}.Newest"}, "data.buffer=.*arguments that .* takes"),
        (SAC(hidden_sizes=[8]), {"sampler": OWN}, "data.sampler=.*the path of a torchrl Sampler"),
        (SAC(hidden_sizes=[8]), {"sampler": "torchrl.data.Nothing"}, "data.sampler=.*the path of a class or function"),
        (SAC(hidden_sizes=[8]), {"sampler": {"path": "x"}}, "data.sampler=.*class_path"),
    ],
)
def test_what_does_not_go_together(algorithm: SAC, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        fit(algorithm, make_data(**options))


def test_a_buffer_that_gives_something_else() -> None:
    storage = {"class_path": "torchrl.data.LazyTensorStorage", "init_args": {"max_size": 40, "ndim": 2}}
    data = make_data(buffer={"class_path": "torchrl.data.ReplayBuffer", "init_args": {"storage": storage}})
    with pytest.raises(Exception, match="batch|dim"):
        fit(Learner(hidden_sizes=[8]), data)


def test_a_rollout_learner_in_a_torchrl_environment() -> None:
    data = make_rollouts(env=f"torchrl/{PARTS}.Point")
    fit(PPO(hidden_sizes=[8]), data)
    assert data.env_steps == 60


def test_all_by_class_path_from_the_command_line(work: Path) -> None:
    options = [
        f"--data.env.name=torchrl/{PARTS}.make_point",
        "--data.env.kwargs={force: 0.25}",
        f"--data.env.transforms=[{PARTS}.Halved, {{class_path: torchrl.envs.RewardScaling, init_args: "
        "{loc: 0.0, scale: 10.0}}]",
        f"--data.sampler={{class_path: {PARTS}.Newest, init_args: {{count: 30}}}}",
    ]
    assert main([*RUN, *options, "--trainer.default_root_dir=run"]) == 0
    whole = rows(work / "run")
    checkpoint = load(work / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["OffPolicy"]["envs"] is not None
    assert main([*RUN, *options, "--trainer.default_root_dir=half", "--trainer.max_epochs=1"]) == 0
    again = ["--trainer.default_root_dir=half", "--ckpt_path=half/checkpoints/last.ckpt", "--trainer.max_epochs=-1"]
    assert main([*RUN, *options, *again]) == 0
    assert rows(work / "half") == whole
    buffer = f"--data.buffer={{class_path: {PARTS}.make_buffer, init_args: {{capacity: 40}}}}"
    assert main([*RUN, buffer, "--trainer.default_root_dir=other"]) == 0
    assert len(rows(work / "other")) == len(whole)
