"""The benchmark of PPO on pictures."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.harness.work import Work
from benchmarks.harness.worker import Contender
from benchmarks.studies import fruitbot


def test_network_fills_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("lit_mbrl.utils.malloc.keep_freed_memory", lambda: kept.append(True))
    table = fruitbot.network(frames=4, repeats=1)
    assert len(table.rows) == 6 and all(int(speed.replace(",", "")) > 0 for _, speed in table.rows)
    assert kept == [True]


@pytest.mark.slow  # half a minute
@pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="Procgen is not installed: '.[procgen]', Qt 5")
@pytest.mark.parametrize("name", ["fruitbot", "sb3_fruitbot"])
def test_contenders_train(name: str) -> None:
    contender = Contender(name, Work(threads=1))
    try:
        assert contender.ready() > 0
        assert contender.turn(1) > 0
    finally:
        contender.close()
