"""`model_error`: figure 3 of the SVG paper from a finished run's replay."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.app.checkpoints import read_checkpoint
from lit_mbrl.app.cli import main
from lit_mbrl.app.commands.model_error import Episodes, Learner, episodes_of
from lit_mbrl.models import RecurrentConfig
from lit_mbrl.reports.model_error import SPLITS
from tests.helpers.command_line import SAC, load

TINY = ["--points=2", "--max_epochs=2", "--hidden_size=8", "--recurrent_size=8", "--members=2", "--horizon=3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run with two environments and ten episodes of 20 steps."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    more = ["--data.total_frames=200", "--data.epoch_frames=200", "--data.utd_ratio=0.05"]
    envs = ["--data.env.num_envs=2", "--data.frames_per_batch=2"]
    assert main([*SAC, *more, *envs, f"--trainer.default_root_dir={folder}"]) == 0
    return folder / "checkpoints" / "last.ckpt"


def test_episodes_are_the_replay_s_own(finished: Path) -> None:
    episodes = list(episodes_of(read_checkpoint(finished)))
    assert [len(episode) for episode in episodes] == [20] * 10
    stored = load(finished)["OffPolicy"]["replay"]["frames"]
    std, mean = torch.std_mean(stored["observation"], 0, correction=0)
    expected = (stored["observation"][1::2][:20] - mean) / std  # the second environment's first episode
    torch.testing.assert_close(episodes[1]["observation"], expected)
    for episode in episodes:  # one step follows the other
        torch.testing.assert_close(episode["observation"][1:], episode["next", "observation"][:-1])
        assert episode["next", "truncated"].flatten().tolist() == [False] * 19 + [True]


def made_up(count: int, length: int = 6) -> list[TensorDict]:
    return [
        TensorDict(
            {"observation": torch.full((length, 1), float(k)), "number": torch.arange(length) + 100 * k}, [length]
        )
        for k in range(count)
    ]


def test_splits_share_no_episode_and_keep_the_order() -> None:
    data = Episodes(made_up(23), horizon=3)
    test = [int(episode["number"][0]) // 100 for episode in data.test]
    assert [k // 5 for k in test] == list(range(len(test))) and len(test) in (4, 5)  # one of every five in a row
    assert data.counts(4)[-1] == len(data.others)
    before: set[int] = set()
    for count in data.counts(4):
        training, holdout = ([int(e["number"][0]) // 100 for e in part] for part in data.first(count))
        assert training == sorted(training) and not {*training} & {*holdout} and not {*training, *holdout} & {*test}
        assert len(training) + len(holdout) == count and holdout and training
        assert before <= {*training}  # what has been learned from is never held out later
        before = {*training}


def test_windows_are_consecutive_and_of_one_episode() -> None:
    data = Episodes(made_up(8), horizon=3)
    windows = data.windows(data.others[:2], 3)["number"]
    first, second = (int(episode["number"][0]) for episode in data.others[:2])
    assert windows.tolist() == [[k, k + 1, k + 2] for start in (first, second) for k in range(start, start + 4)]


def test_too_short_episodes_are_left_out() -> None:
    data = Episodes([*made_up(5), *made_up(5, length=2)], horizon=3)
    assert len(data.others) + len(data.test) == 5


def test_errors_are_the_mean_squares_of_each_step() -> None:
    episodes = [
        TensorDict(
            {
                "observation": torch.randn(5, 2),
                "action": torch.rand(5, 1),
                "next": {"observation": torch.randn(5, 2), "reward": torch.zeros(5, 1)},
            },
            [5],
        )
        for _ in range(6)
    ]
    data = Episodes(episodes, horizon=2)
    learner = Learner(RecurrentConfig(hidden_size=4), data, fresh=False)
    (episode,) = data.test[:1]
    expected = torch.zeros(2)
    for start in range(4):
        window = episode[start : start + 2]
        predicted = learner.model.unroll(window["observation"][:1], window["action"][None])[0]
        expected += (predicted - window["next", "observation"]).square().mean(1) / 4
    torch.testing.assert_close(learner.errors([episode]), expected)


@pytest.mark.parametrize("fresh", [False, True])
def test_retraining_goes_on_unless_it_is_to_start_anew(fresh: bool) -> None:
    data = Episodes([TensorDict({**e, "action": torch.zeros(6, 1)}, [6]) for e in made_up(6)], horizon=2)
    for episode in data.others:
        episode["next", "observation"] = episode["observation"] + 0.1
    learner = Learner(RecurrentConfig(hidden_size=4), data, fresh)
    model = learner.model
    learner.train(*data.first(3), 8, 1)
    assert (learner.model is model) is not fresh


def test_the_figure_and_its_numbers(finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    out = tmp_path / "pictures" / "fig3"
    command = ["model_error", f"--ckpt_path={finished}", f"--out={out}.png", *TINY]
    assert main(command) == 0
    assert "SAC on Pendulum-v1: 8 episodes to add, 2 to test on" in capfd.readouterr().out
    with Path(f"{out}.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["episodes"], row["model"], row["split"]) for row in table] == [
        (count, model, split) for count in ("4", "8") for model in ("ensemble of 2", "recurrent") for split in SPLITS
    ]
    for row in table:
        steps = [float(row[f"mse_{h}"]) for h in (1, 2, 3)]
        assert float(row["mse"]) == pytest.approx(sum(steps) / 3, rel=1e-5) and min(steps) > 0
    assert [row["transitions"] for row in table[:1]] == ["60"]  # four episodes of 20, one of them held out
    found = json.loads(Path(f"{out}.json").read_text())
    assert found["run"] == {"algorithm": "SAC", "environment": "Pendulum-v1", "env_steps": 200}
    assert [row["mse"] for row in found["rows"]] == [float(row["mse"]) for row in table]
    assert Path(f"{out}.png").read_bytes().startswith(b"\x89PNG") and "<svg" in Path(f"{out}.svg").read_text()

    before = Path(f"{out}.csv").read_bytes()
    assert main(command) == 0  # the same command repeats itself
    assert Path(f"{out}.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--ckpt_path: expected a checkpoint, with its replay"),
        (["--ckpt_path=nope.ckpt"], "--ckpt_path=nope.ckpt: expected a checkpoint, but there is no such file"),
        (["--ckpt_path=HERE", "--horizon=0"], "--horizon=0: expected an integer > 0"),
        (["--ckpt_path=HERE", "--horizon=21"], "--ckpt_path="),
        (["--ckpt_path=HERE", "--lr=-1"], "--lr=-1: expected a number > 0"),
        (["--ckpt_path=HERE", "--seed=x"], "--seed=x: expected an integer >= 0"),
        (["--ckpt_path=HERE", "--member=3"], "--member=3: no such option (did you mean '--members'?)"),
        (["--ckpt_path=HERE", "--out=."], "--out=.: expected the name of a file, without its ending"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["model_error", *(argument.replace("HERE", str(finished)) for argument in arguments)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {line}"), err
    assert not any(tmp_path.iterdir())
