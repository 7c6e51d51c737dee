"""W&B that fails, at whatever moment, costs a run nothing but its W&B page."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.app import loggers
from lit_mbrl.app.cli import main
from lit_mbrl.app.loggers import WandbLogger
from lit_mbrl.app.tolerant import Tolerant, within
from lit_mbrl.callbacks.wandb_run import WandbRun
from tests.helpers.command_line import TINY, rows

RUN = ["fit", "--config", "conf/sac.yaml", *TINY, "--trainer.default_root_dir=run", "--progress.enabled=false"]
RECORD = "--trainer.callbacks+=lit_mbrl.callbacks.WandbRun"


class FakeRun:
    """A `wandb.Run` that works until it does not."""

    offline, disabled, url, id = True, False, None, "fake"

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.config = self
        self.logged = 0
        self.released = threading.Event()

    def _may_fail(self, name: str) -> None:
        if name == self.fails:
            raise ConnectionResetError("Connection lost")

    def keys(self) -> list[str]:
        self._may_fail("config")
        return []

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._may_fail("config")

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        self._may_fail("define")

    def log(self, metrics: dict[str, Any]) -> None:
        self.logged += 1
        self._may_fail("log" if self.logged < 3 else "later log")

    def save(self, *args: Any, **kwargs: Any) -> None:
        self._may_fail("save")

    def finish(self, exit_code: int = 0) -> None:
        if self.fails == "silence":
            self.released.wait(30)
        self._may_fail("finish")


@pytest.fixture(autouse=True)
def nobody_is_logged_in(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(work.parent / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def warnings_of(capfd: pytest.CaptureFixture) -> list[str]:
    """Returns the lines about W&B on standard error, and checks that there is no traceback."""
    err = capfd.readouterr().err
    assert "Traceback" not in err
    return [line for line in err.splitlines() if "W&B" in line]


@pytest.mark.parametrize("fails", ["init", "define", "config", "log", "later log", "save", "finish"])
def test_a_run_goes_on_without_it(fails: str, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> FakeRun:
        if fails == "init":
            raise wandb.errors.CommError("the service is down\nand more about it")
        return FakeRun(fails)

    monkeypatch.setattr("wandb.init", init)
    assert main([*RUN, RECORD]) == 0
    (line,) = warnings_of(capfd)
    assert line.endswith("; the run goes on without it, and metrics.csv has everything")
    assert line.startswith("warning: W&B: the service is down" if fails == "init" else "warning: W&B: Connection lost")
    assert [row["step"] for row in rows(Path("run")) if row["eval/return"]] == ["40", "60"]


def test_an_end_that_takes_for_ever_is_cut(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun("silence")
    monkeypatch.setattr("wandb.init", lambda **_: run)
    monkeypatch.setattr(loggers, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(loggers, "INIT_SECONDS", 0.1)
    assert main(RUN) == 0
    run.released.set()
    (line,) = warnings_of(capfd)
    assert "not everything was sent in 0.2 s, `wandb sync " in line and "-fake` sends the rest" in line


def test_a_mode_that_there_is_not(work: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert main(RUN) == 2
    line = "error: WANDB_MODE=ofline: expected online, offline or disabled (did you mean 'offline'?)\n"
    assert capfd.readouterr().err == line and list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "server", "why"),
    [("short", "https://api.wandb.ai", "40+ characters"), ("0" * 40, "http://127.0.0.1:9", "at http://127.0.0.1:9 (")],
)
def test_a_wrong_key_and_no_server_are_recorded_offline(
    key: str, server: str, why: str, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setattr(loggers, "INIT_SECONDS", 2.0)
    logger = WandbLogger()
    logger.use_folder(tmp_path / "run")
    logger.log_metrics({"a": 1.0}, step=1)
    assert logger.experiment.offline
    logger.close()
    (line,) = warnings_of(capfd)
    assert why in line and "; this run is recorded offline, and sent by `wandb sync " in line
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    wandb.teardown()  # it would remember the key


class KillService(Callback):
    """Kills W&B's service process in the middle of a run."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == 15:
            services = [child for child in psutil.Process().children(True) if "wandb" in child.name()]
            assert services
            for service in services:
                service.kill()


def test_its_service_process_is_killed(capfd: pytest.CaptureFixture) -> None:
    assert main([*RUN, RECORD, "--trainer.callbacks+=tests.unit.app.test_wandb_failures.KillService"]) == 0
    (line,) = warnings_of(capfd)
    assert line.endswith("; the run goes on without it, and metrics.csv has everything")
    assert [row["step"] for row in rows(Path("run")) if row["eval/return"]] == ["40", "60"]
    assert main([*RUN[:-2], "--trainer.default_root_dir=again"]) == 0  # and the next one has W&B again
    assert warnings_of(capfd) == [] and list(Path("again/wandb").glob("offline-run-*"))


def test_a_callback_of_another_logger_s_run_is_not_protected() -> None:
    with pytest.raises(ZeroDivisionError):
        WandbRun()._attempt(lambda: 1 / 0)


def test_within() -> None:
    assert within(5.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 / 0)
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, release.wait)
    release.set()


def test_what_fails_while_it_is_given_up_does_not_matter(capfd: pytest.CaptureFixture) -> None:
    service = Tolerant("S", "so what", lambda: 1 / 0)
    assert service.attempt(lambda: 1) == 1
    assert service.attempt(lambda: 1 / 0) is None and service.lost
    assert service.attempt(lambda: pytest.fail("called")) is None
    assert capfd.readouterr().err == "warning: S: division by zero; so what\n"
