"""Steps of an environment that are not finite, or that it does not survive: no trace of them in what is learnt from."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import PPO, SAC
from lit_mbrl.app.cli import main
from lit_mbrl.data import OffPolicy, OnPolicy
from lit_mbrl.envs.guard import EnvFailed
from lit_mbrl.utils import overdue
from tests.helpers.command_line import SAC as FIT
from tests.helpers.command_line import rows
from tests.helpers.misbehaving import MISBEHAVING
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts

FAULTS = ["nan_observation", "infinite_observation", "nan_reward", "infinite_reward"]


def agent(action: str, **options: Any) -> SAC:
    """A small agent with statistics of its observations."""
    algorithm = SAC(hidden_sizes=[8], normalize_observations=True, **options)
    algorithm.finite.action = action
    return algorithm


def data_with(fault: str, at: int, once: bool = True, **options: Any) -> OffPolicy:
    """Data of an environment with a fault; every one of its copies has it."""
    data = make_data(MISBEHAVING, max_episode_steps=7, **options)
    data.env.kwargs |= {"fault": fault, "at": at, "once": once, "length": None}
    return data


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("num_envs", "workers"), [(1, False), (2, False), (2, True)])
def test_a_step_that_is_left_out_leaves_real_episodes(
    fault: str, num_envs: int, workers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_with(fault, at=17, num_envs=num_envs, frames_per_batch=2)
    data.env.workers = workers
    algorithm = agent("skip")
    fit(algorithm, data)
    assert caplog.text.count("such steps are left out") == 1
    frames = data.replay.numbered(data.replay.written - len(data.replay), data.replay.written)
    assert all(torch.isfinite(value.float()).all() for value in frames.values())
    for copy in range(num_envs):
        now, then = (frames[name][copy::num_envs][:, 0] for name in ("observation", "next.observation"))
        assert torch.equal(then, now + 1)  # no frame has its two observations from two episodes
        ends = (frames["next.terminated"] | frames["next.truncated"])[copy::num_envs].flatten()
        assert torch.equal(ends[:-1], now[1:] == 0)
        assert (then[ends] < 7).sum() == 1  # the episode that the fault has cut
    assert torch.isfinite(algorithm.normalizer.mean).all()
    assert algorithm.finite.skipped == {"frames": num_envs}
    assert algorithm.finite.metrics() == {"faults/skipped_frames": float(num_envs)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_stops_before_it_learns_from_it(fault: str) -> None:
    data = data_with(fault, at=31)
    with pytest.raises(
        EnvFailed, match=rf"^{MISBEHAVING}, step 4 of an episode: its (observation|reward) is -?(nan|inf)"
    ):
        fit(agent("stop"), data)
    assert data.env_steps == 31 and len(data.replay) == 31


def test_nothing_but_faults_ends_the_run() -> None:
    with pytest.raises(EnvFailed, match="11 times in a row"):
        fit(agent("skip"), data_with("nan_observation", at=31, once=False))


def test_an_evaluation_ends_an_episode_at_a_fault() -> None:
    data = data_with("nan_reward", at=9, eval_episodes=2)
    trainer = fit(agent("skip"), data, max_epochs=2)
    assert float(trainer.callback_metrics["eval/episode_length"]) == 3.0  # the second, after one of 7 steps
    assert float(trainer.callback_metrics["eval/return"]) == 2.0


def test_rollouts_have_no_trace_of_it() -> None:
    data: OnPolicy = make_rollouts(MISBEHAVING, max_episode_steps=7)
    data.env.kwargs |= {"fault": "nan_observation", "at": 8, "once": True, "length": None}
    algorithm = PPO(hidden_sizes=[8])
    algorithm.finite.action = "skip"
    fit(algorithm, data)
    assert all(torch.isfinite(value).all() for value in algorithm.parameters())
    assert algorithm.finite.skipped == {"frames": 2}


def test_a_run_that_leaves_steps_out_resumes_exactly(tmp_path: Path) -> None:
    def run(*callbacks: Any, **options: Any) -> dict[str, torch.Tensor]:
        data, algorithm = data_with("nan_observation", at=45), agent("skip")
        fit(algorithm, data, *callbacks, **options)
        assert algorithm.finite.skipped == {"frames": 1}
        return everything(algorithm, data)

    whole = run()
    with pytest.raises(Stop):
        fit(agent("skip"), data_with("nan_observation", at=45), SaveAndStop(tmp_path / "a.ckpt", 12))
    again = run(ckpt_path=tmp_path / "a.ckpt")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


# ---------------------------------------------------------------------- the command line
def one_line(capfd: pytest.CaptureFixture, *options: str, kwargs: str, code: int = 1) -> str:
    """The line of a run that fails in its environment."""
    arguments = [f"--data.env.name={MISBEHAVING}", f"--data.env.kwargs={{{kwargs}}}", "--trainer.default_root_dir=run"]
    assert main([*FIT, *arguments, *options]) == code
    err = capfd.readouterr().err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    return line


@pytest.mark.parametrize("fault", ["fail", "fail_to_write", "exit"])
def test_an_exception_is_one_line_and_a_file(fault: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    line = one_line(capfd, kwargs=f"fault: {fault}, at: 45")
    assert line.startswith(f"error: {MISBEHAVING}, step 6 of an episode: it ")
    assert "(traceback: run/environment_error.txt). At 45 env steps; " in line
    assert line.endswith("the last good checkpoint is run/checkpoints/last.ckpt (40 env steps)")
    text = (work / "run" / "environment_error.txt").read_text()
    assert "misbehaving.py" in text and "Traceback" in text


def test_an_exception_before_the_run_leaves_no_folder(work: Path, capfd: pytest.CaptureFixture) -> None:
    line = one_line(capfd, kwargs="fault: fail", code=2)
    path = Path(line.partition("(traceback: ")[2].rstrip(")"))
    assert "Traceback" in path.read_text() and list(work.iterdir()) == []
    path.unlink()


def test_sigterm_ends_a_run_whose_environment_does_not_answer(
    work: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdue, "STOP_SECONDS", 1.0)
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def ask() -> None:
        while not overdue.WATCH.running or not overdue.WATCH.running.what().endswith("step 6 of an episode"):
            stop.wait(0.05)
        signal.pthread_kill(main_thread, signal.SIGTERM)

    stop = threading.Event()
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    line = one_line(capfd, kwargs="fault: sleep, at: 45")
    asking.join()
    assert "step 6 of an episode: it did not return within 1 s of the signal to stop. At 45 env steps" in line


def test_an_environment_without_a_limit_is_said(work: Path, capfd: pytest.CaptureFixture) -> None:
    arguments = [option for option in FIT if "max_episode_steps" not in option]
    kwargs = "--data.env.kwargs={length: 100}"
    name = f"--data.env.name={MISBEHAVING}"
    assert main([*arguments, name, kwargs, "--data.env.max_eval_steps=30", "--trainer.default_root_dir=run"]) == 0
    assert "is cut after 30 steps (data.env.max_eval_steps)" in capfd.readouterr().out
    assert {row["eval/episode_length"] for row in rows(Path("run"))} - {""} == {"30.0"}
