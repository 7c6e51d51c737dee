"""The benchmarks run, at a toy size, and what they compare is the same work."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict

from benchmarks.__main__ import SECTIONS, _without_paths, main
from benchmarks.contenders import bare_ppo
from benchmarks.contenders.bare_updates import Losses, compiled_round, eager_round
from benchmarks.harness.pairs import interleave, ratios, spread
from benchmarks.harness.report import BEGIN, END, Table, origin, write
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Contender, Finished, Meter
from benchmarks.studies import parts
from benchmarks.studies.checkpoint_cost import NEW
from lit_mbrl.algorithms import DDPG, PPO, SAC, TD3, Algorithm
from lit_mbrl.envs import Spec
from lit_mbrl.envs.pool import LocalPool

TASKS = ["Pendulum-v1", "HalfCheetah-v5"]
HORIZONS = [str(h) for h in range(6)]
# Section -> table -> the first cells of its rows.
EXPECTED = {
    **{name: {f"{name}_speed": TASKS, f"{name}_ratio": TASKS} for name in ("sac", "td3", "ddpg")},
    "ppo": {name: ["HalfCheetah-v5", "CartPole-v1"] for name in ("ppo_speed", "ppo_ratio")},
    "profile": {"profile_eager": None},
    "svg": {
        "svg_laptop": HORIZONS,
        "svg_paper": HORIZONS,
        "svg_batch": ["128", "256", "512", "1024"],
        "svg_dynamics": None,
    },
    "mbpo": {"mbpo": ["lit_mbrl"]},
    "replay": {"replay": None},
    "collector": {"collector": [task for task in TASKS for _ in range(3)]},
    "checkpoint": {"checkpoint": [f"{NEW * n:,}" for n in (1, 2, 3)]},
    "start_up": {"start_up": None},
    "compile": {"compile": ["lit_mbrl", "bare"]},
    "dreamer": {
        "dreamer_update": ["lit_mbrl, 32-true", "lit_mbrl, bf16-mixed"],
        "dreamer_parts": ["model", "actor", "critic"],
    },
}


class Sleeper(Callback):
    """Takes 3 ms of every round."""

    def on_train_batch_end(self, *args: object) -> None:
        time.sleep(0.003)


@pytest.mark.parametrize("sections", [[name for name in SECTIONS if name != "svg"], ["svg"]], ids=["others", "svg"])
def test_quick_fills_every_table(sections: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["--quick", "--only", ",".join(sections), "--out", "perf"])
    tables = json.loads(Path("perf.json").read_text())
    expected = {name: rows for section in sections for name, rows in EXPECTED[section].items()}
    assert set(expected) <= set(tables)
    text = Path("perf.md").read_text()
    for name, table in tables.items():
        assert all(len(row) == len(table["header"]) and all(row) for row in table["rows"]), name
        assert f"### {table['title']}\n" in text
        if expected.get(name) is not None:
            assert [row[0] for row in table["rows"]] == expected[name]
        else:
            assert table["rows"]
    assert sorted(EXPECTED) == sorted(SECTIONS)
    # What is always there was measured.
    for name in ("sac", "td3", "ddpg"):
        if name in sections:
            assert all(float(seconds) > 0 for seconds in tables[f"{name}_speed"]["raw"][TASKS[0]]["lit_mbrl"])
            assert all("-" not in (row[1], row[5]) for row in tables[f"{name}_speed"]["rows"])


@pytest.mark.parametrize("discrete", [False, True])
def test_bare_ppo_takes_our_steps(discrete: bool) -> None:
    """The same loss, and after some steps the same weights, whether run operation by operation or as a graph."""
    work = Work("ppo", hidden=(8, 8), lr=1e-2)
    torch.manual_seed(0)
    ours = PPO(hidden_sizes=[8, 8])
    ours.configure(Spec("made up", 3, 2, discrete=discrete))
    agents = []
    for make in (bare_ppo.eager_step, partial(bare_ppo.compiled_step, backend="eager")):
        agent = bare_ppo.Agent(work, 3, 2, discrete)
        for net, module in ((agent.actor, ours.actor), (agent.critic, ours.critic)):
            weights = [value for name, value in module.named_parameters() if name != "log_std"]
            for mine, theirs in zip(net, weights, strict=True):
                mine.copy_(theirs.detach())
        agents.append((agent, make(agent)))
    generator = torch.Generator().manual_seed(1)
    for number in range(3):
        observation, noise = (torch.randn(16, width, generator=generator) for width in (3, 2))
        action = torch.randint(2, (16,), generator=generator) if discrete else noise
        old, advantage, value = torch.randn(3, 16, generator=generator).unbind()
        old = 0.1 * old - 2.0
        batch = {"observation": observation, "action": action, "log_prob": old, "value": value, "advantage": advantage}
        rows = {
            name: row.unsqueeze(-1) if name in ("log_prob", "value", "advantage") else row
            for name, row in batch.items()
        }
        packed = (observation, action, old, advantage, advantage + value)
        if number == 0:
            for agent, _step in agents:
                found = agent.loss(agent.parameters, packed)
                torch.testing.assert_close(found, ours.loss(TensorDict(rows, [16])))
        for _agent, step in agents:
            step(packed)
    for first, second in zip(agents[0][0].parameters, agents[1][0].parameters, strict=True):
        torch.testing.assert_close(first.detach(), second.detach(), atol=1e-5, rtol=1e-4)


def test_filling_keeps_what_is_not_measured(tmp_path: Path) -> None:
    out = tmp_path / "performance"
    out.with_suffix(".md").write_text(f"# Speed\n\n{BEGIN}\nold\n{END}\n\nWhy.\n")
    first = Table("one", "One", ["a"], [["1"]], origin=origin("command", 1))
    write([first, Table("two", "Two", ["a"], [["2"]], origin=origin("command", 1))], out)
    write([Table("one", "One", ["a"], [["3"]], origin=origin("command", 1))], out)
    text = out.with_suffix(".md").read_text()
    assert text.startswith("# Speed\n") and text.endswith("\nWhy.\n")
    assert "| 3 |" in text and "| 2 |" in text and "| 1 |" not in text and "old" not in text


def test_contenders_take_turns_in_mirrored_order() -> None:
    heard: list[str] = []

    def contender(name: str, seconds: float) -> Callable[[], float]:
        return lambda: heard.append(name) or seconds

    found = interleave({"a": contender("a", 2.0), "b": contender("b", 0.5)}, pairs=2, blocks=2)
    assert "".join(heard) == "abbaabba"
    assert found == {"a": [4.0, 4.0], "b": [1.0, 1.0]}
    assert ratios(found["a"], found["b"]) == (4.0, 4.0, 4.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)


def test_the_clock_stands_still_while_it_shall() -> None:
    orders_out, orders_in = os.pipe()
    answers_out, answers_in = os.pipe()
    with (
        os.fdopen(orders_out) as reader,
        os.fdopen(answers_in, "w") as writer,
        os.fdopen(answers_out) as answers,
    ):
        with os.fdopen(orders_in, "w") as orders:
            orders.write("2\n")
        meter = Meter(reader, writer)
        meter.tick()
        time.sleep(0.02)
        meter.tick()
        meter.stop_clock()
        time.sleep(0.2)
        meter.start_clock()
        with pytest.raises(Finished):
            meter.tick()
        assert [answers.readline().strip() for _ in range(2)] == ["started", "ready"]
        wall, processor = map(float, answers.readline().split())
        assert 0.02 <= wall < 0.2
        assert 0.0 <= processor < 0.02  # it slept


def test_a_contender_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    contender = Contender("lit_mbrl", Work(env="NoSuchTask-v0", wandb=False), in_thread=True)
    with pytest.raises(RuntimeError, match="NoSuchTask"):
        contender.ready()
    contender.close()


# ---------------------------------------------------------------------- the profile
def test_parts_add_up_to_the_round() -> None:
    step = LocalPool.step
    options = ["--model.hidden_sizes=[64,64]", "--data.batch_size=64", "--data.learning_starts=50"]
    options += ["--data.epoch_frames=60", "--data.eval_episodes=1", "--data.env.max_episode_steps=20"]
    options += ["--trainer.logger=null", "--trainer.accelerator=cpu", "--progress.enabled=false"]
    options += ["--trainer.callbacks+=tests.unit.benchmarks.test_benchmarks.Sleeper"]
    start = time.perf_counter()
    measured = parts.measure(["--config", "conf/sac.yaml", *options], rounds=80, warm=20)
    assert LocalPool.step is step, "nothing stays wrapped"
    assert 0 < measured.whole < time.perf_counter() - start
    found = measured.microseconds()
    assert sum(found.values()) == pytest.approx(measured.whole / 80 * 1e6, rel=0.03)
    assert set(found) == {
        "collect: the rest",
        "collect: collector",
        "collect: policy",
        "collect: environment",
        "replay: extend",
        "replay: sample",
        "prepare the batch",
        "updates: the rest",
        "updates: are they finite",
        *(
            f"updates: {update}, {part}"
            for update in ("critic", "actor", "alpha")
            for part in ("forward and loss", "backward", "optimiser")
        ),
        "soft update of the targets",
        "callbacks: the rest",
        "Lightning: the rest",
        "checkpoint",
        "evaluation",
        "logging",
    }
    assert min(found.values()) > 0
    assert found["callbacks: the rest"] >= 3000, "the 3 ms that a callback sleeps are the callbacks'"
    assert 0.1 < parts.not_arithmetic(found) < 1
    rows = parts.table(measured, "profile", "Profile").rows
    assert [row[0] for row in rows[-2:]] == ["sum of the parts", "whole round, by its own clock"]


def test_a_compiled_round_is_one_part() -> None:
    measured = parts.Parts(rounds=2, warm=1)
    measured.watch.seconds = {parts.REST: 0.02, "collect: policy": 0.02, parts.ROUND: 0.16, parts.EVALUATION: 1.0}
    found = measured.microseconds()
    assert list(found) == ["collect: policy", "updates: compiled round", parts.REST, parts.EVALUATION]
    assert found["updates: compiled round"] == pytest.approx(80_000)
    assert parts.not_arithmetic(found) == pytest.approx(0.2)


def test_what_runs_in_an_evaluation_is_the_evaluation_s() -> None:
    watch = parts.Stopwatch()
    step = watch.timed(lambda: time.sleep(0.01), "collect: environment")
    evaluate = watch.timed(lambda: [step() for _ in range(3)], parts.EVALUATION)
    evaluate()
    step()
    assert watch.seconds[parts.EVALUATION] >= 0.03
    assert 0.01 <= watch.seconds["collect: environment"] < watch.seconds[parts.EVALUATION]


def test_mistakes_in_the_profile_s_options_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "--config", "conf/sac.yaml", "--model.gama=3"]) == 2
    assert capsys.readouterr().err.startswith("error: --model.gama=3: SAC has no such option")
    short = ["--config", "conf/sac.yaml", "--model.hidden_sizes=[8]", "--data.batch_size=4", "--data.eval_episodes=1"]
    short += ["--data.total_frames=30", "--data.learning_starts=20", "--data.env.max_episode_steps=10"]
    assert main(["--profile", "--rounds=50", *short, "--trainer.logger=null", "--trainer.accelerator=cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: --rounds=50: expected less than the run has")


def test_the_command_is_told_without_this_machine_s_paths() -> None:
    argv = ["--sheeprl=/a/b/bin/python", "--out", "/c/d/docs", "--only=sac", "--out=docs/performance"]
    assert _without_paths(argv) == ["--sheeprl=python", "--out", "docs", "--only=sac", "--out=docs/performance"]


# ---------------------------------------------------------------------- the limit does the same work
def packed(count: int) -> torch.Tensor:
    """Rows as `bare.PackedReplay` has them, of Pendulum's sizes."""
    rows = torch.randn(count, 3 + 1 + 3 + 2)
    rows[:, -1] = (rows[:, -1] > 1).float()
    return rows


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_the_compiled_limit_is_the_eager_one(name: str) -> None:
    work = Work(name, hidden=(16,), lr=1e-2)
    eager, compiled = Losses(work, 3, 1), Losses(work, 3, 1)
    for mine, theirs in zip(
        eager.trained() + list(eager.pairs()), compiled.trained() + list(compiled.pairs()), strict=True
    ):
        torch._foreach_copy_(theirs, mine)
    rounds = eager_round(eager), compiled_round(compiled, backend="eager")
    for i in range(4):
        batch, noise = packed(32), torch.randn(eager.noise_shape(32))
        for run in rounds:
            run(batch, noise, i % eager.policy_every == 0)
    for mine, theirs in zip(
        [*eager.trained(), eager.pairs()[0]], [*compiled.trained(), compiled.pairs()[0]], strict=True
    ):
        torch.testing.assert_close([value.detach() for value in mine], theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "cls"), [("sac", SAC), ("td3", TD3), ("ddpg", DDPG)])
def test_the_limit_has_the_library_s_losses(name: str, cls: type[Algorithm]) -> None:
    losses = Losses(Work(name, hidden=(16, 16)), 3, 1)
    algorithm = cls(hidden_sizes=[16, 16])
    algorithm.configure(Spec("made up", 3, 1))
    nets = {"actor": losses.actor, "critic": losses.critic, "critic_target": losses.critic_target}
    if name != "sac":
        nets["actor_target"] = losses.actor_target
    for target, net in nets.items():
        torch._foreach_copy_([value.detach() for value in getattr(algorithm, target).parameters()], net)
    rows, noise = packed(64), torch.randn(losses.noise_shape(64))
    batch = rows.split(losses.cuts, -1)
    frames = TensorDict(
        {
            "observation": batch[0],
            "action": batch[1],
            "next": {"observation": batch[2], "reward": batch[3], "terminated": batch[4].bool()},
        },
        [64],
    )
    given = iter(noise)
    with pytest.MonkeyPatch.context() as patch:
        if name == "sac":
            patch.setattr(algorithm, "noise", lambda *shape: next(given))
        patch.setattr(torch, "randn_like", lambda value: noise[0])
        critic, actor = algorithm.critic_loss(frames), algorithm.actor_loss(frames)
        actor, *given = actor if name == "sac" else (actor,)
    torch.testing.assert_close(losses.critic_loss(losses.critic, batch, noise), critic)
    bare_actor, log_prob = losses.actor_loss(losses.actor, batch, noise)
    torch.testing.assert_close(bare_actor, actor)
    if name == "sac":
        torch.testing.assert_close(losses.alpha_loss(losses.log_alpha, log_prob), algorithm.alpha_loss(frames, *given))


def test_a_mistake_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "sac,nothing"])
    assert "--only=nothing: expected some of sac,td3" in capsys.readouterr().err
