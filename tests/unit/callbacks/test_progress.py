"""What a terminal and what a log file sees."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

import lit_mbrl.callbacks.progress
from lit_mbrl.algorithms import SAC
from lit_mbrl.app.cli import CONF
from lit_mbrl.callbacks import ProgressBar, duration
from tests.helpers.dyna import make
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data


class Bar:
    """Stands for tqdm, and remembers."""

    def __init__(self, **options: Any) -> None:
        self.options, self.n, self.shown, self.postfix, self.closed = options, options["initial"], [], "", False

    def update(self, count: int) -> None:
        self.n += count
        self.shown.append(self.n)

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.postfix = text

    def refresh(self) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that were made, as if there were a terminal."""
    made: list[Bar] = []
    monkeypatch.setattr(lit_mbrl.callbacks.progress, "_has_terminal", lambda: True)
    monkeypatch.setattr(lit_mbrl.callbacks.progress, "_terminal", lambda: sys.stderr)
    monkeypatch.setattr(lit_mbrl.callbacks.progress, "tqdm", lambda **options: made.append(Bar(**options)) or made[-1])
    return made


def test_bar_counts_environment_steps_from_the_warm_up_on(bars: list[Bar], capsys: pytest.CaptureFixture) -> None:
    fit(SAC(hidden_sizes=[8]), make_data(), ProgressBar(refresh_seconds=0))
    (bar,) = bars
    assert (bar.options["initial"], bar.options["total"]) == (0, 60)
    assert bar.shown[0] == 1 and bar.shown[-1] == 60 and bar.shown == sorted(bar.shown)
    assert re.fullmatch(r"eval return -?\d+\.\d \+- \d+\.\d", bar.postfix)
    assert bar.closed
    assert "env steps (" not in capsys.readouterr().out


def test_bar_is_updated_a_few_times_a_second_only(bars: list[Bar]) -> None:
    fit(SAC(hidden_sizes=[8]), make_data(), ProgressBar(refresh_seconds=1e12))
    assert bars[0].shown == [40, 60, 60]  # two evaluations, the end


def test_bar_of_a_resumed_run_starts_where_it_was(bars: list[Bar], tmp_path: Any) -> None:
    with pytest.raises(Stop):
        fit(SAC(hidden_sizes=[8]), make_data(), SaveAndStop(tmp_path / "stop.ckpt", 10), ProgressBar())
    assert bars[0].closed
    fit(SAC(hidden_sizes=[8]), make_data(), ProgressBar(), ckpt_path=tmp_path / "stop.ckpt")
    assert bars[1].options["initial"] == 34  # 24 frames of warm-up and 10 rounds


def test_the_bar_goes_to_the_terminal_past_those_who_copy_standard_error() -> None:
    code = """
import sys
from tqdm import tqdm
from lit_mbrl.callbacks.progress import _has_terminal, _terminal
copied = []
sys.stderr.write = copied.append
assert _has_terminal()
tqdm(total=8, initial=5, file=_terminal(), bar_format="{n} of {total}").close()
assert not copied
"""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=slave, cwd=CONF.parent, check=True)
    os.close(slave)
    shown = os.read(master, 1000).decode()
    os.close(master)
    assert "5 of 8" in shown


def test_log_file_gets_a_line_per_evaluation(capsys: pytest.CaptureFixture) -> None:
    fit(SAC(hidden_sizes=[8]), make_data(), ProgressBar())
    lines = [line for line in capsys.readouterr().out.splitlines() if "env steps" in line]
    assert [line.split(" env steps ")[0] for line in lines] == ["40/60", "60/60"]
    pattern = r"\d+/60 env steps \(\d+%\), [\d,]+ steps/s, \ds elapsed, \ds left, eval return -?[\d.]+ \+- [\d.]+"
    assert all(re.fullmatch(pattern, line) for line in lines)


def test_can_be_switched_off(bars: list[Bar], capsys: pytest.CaptureFixture) -> None:
    fit(SAC(hidden_sizes=[8]), make_data(), ProgressBar(enabled=False))
    assert bars == [] and "eval return" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (130, "2m10s"), (3600, "1h00m"), (11100, "3h05m")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bar_tells_of_a_model_s_fit_and_shows_the_evaluation_again(
    bars: list[Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Bar, "refresh", lambda self: shown.append(self.postfix))
    fit(*make("mbpo"), ProgressBar(refresh_seconds=0))
    news = [text for text in shown if "fitting" in text]
    assert re.fullmatch(r"fitting the model's dynamics: epoch 1, hold-out error \d\S*", news[0])
    assert re.fullmatch(r"eval return -?\d+\.\d \+- \d+\.\d, fitting the model's dynamics: epoch 3, .*", news[-1])
    assert re.fullmatch(r"eval return -?\d+\.\d \+- \d+\.\d", bars[0].postfix)


def test_log_has_a_line_every_half_a_minute_of_a_long_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clock = iter(range(0, 10**6, 12))  # every look at the clock finds it twelve seconds on
    monkeypatch.setattr(lit_mbrl.callbacks.progress.time, "monotonic", lambda: float(next(clock)))
    algorithm, data = make("mbpo", model_train_freq=100)
    algorithm.fitter.options |= {"max_epochs": 9, "patience": 9}
    fit(algorithm, data, ProgressBar())
    lines = [line for line in capsys.readouterr().out.splitlines() if "fitting" in line]
    # The nine epochs of the only fit: the first starts the clock, a line at 36 seconds after it, and so on.
    assert [line.split("epoch ")[1].split(",")[0] for line in lines] == ["4", "7"]
    assert all(line.startswith("24/60 env steps, fitting the model's dynamics: epoch ") for line in lines)


def test_nothing_is_told_where_progress_is_off(capsys: pytest.CaptureFixture) -> None:
    fit(*make("mbpo"), ProgressBar(enabled=False))
    assert "fitting" not in capsys.readouterr().out
