"""The replay on the disk: each frame is written once, and every checkpoint gets back what it was saved with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_mbrl.algorithms import SAC
from lit_mbrl.callbacks import Checkpoint
from lit_mbrl.data import Replay
from lit_mbrl.data.buffers.files import ReplayFiles
from tests.helpers.runs import everything, fit, make_data
from tests.unit.data.buffers.test_transitions import frames

ON: dict[str, Any] = {"enable_checkpointing": None}


def same(first: Replay, second: Replay) -> bool:
    one, other = first.frames(), second.frames()
    return first.position() == second.position() and bool((one == other).all()) and len(first) == len(second)


def reload(folder: Path, state: dict[str, Any], capacity: int) -> Replay:
    replay = Replay(capacity)
    ReplayFiles(folder).load(replay, state)
    return replay


@pytest.mark.parametrize("piece", [7, 100_000])
def test_every_saved_state_comes_back_slot_by_slot(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "piece", piece)
    replay, files = Replay(30), ReplayFiles(tmp_path / "replay")
    for t in range(100):
        replay.extend(frames(t, 1, ends={6: "terminated", 38: "truncated"}))
        if t % 11 == 3:
            state = files.save(replay)
            assert same(replay, reload(tmp_path / "replay", state, 30))


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    replay, files = Replay(1000), ReplayFiles(tmp_path)
    written = []
    for t in range(5):
        replay.extend(frames(100 * t, 100))
        before = {path.name for path in tmp_path.iterdir()}
        files.save(replay)
        written.append([path for path in sorted(tmp_path.iterdir()) if path.name not in before])
    assert [[path.name for path in new] for new in written] == [[f"{100 * t}-{100 * t + 100}.pt"] for t in range(5)]
    assert len({path.stat().st_size for (path,) in written}) == 1
    assert [file[0] for file in files.save(replay)["files"]] == [path.name for (path,) in written]  # nothing new
    assert len(list(tmp_path.iterdir())) == 5


def test_marks_that_come_after_the_writing_are_kept(tmp_path: Path) -> None:
    replay, files = Replay(30), ReplayFiles(tmp_path)
    replay.extend(frames(0, 40))
    early = files.save(replay)
    replay.truncate_running_episodes()
    late = files.save(replay)
    assert early["files"] == late["files"]
    assert not reload(tmp_path, early, 30).frames()["next", "truncated"].any()
    copy = reload(tmp_path, late, 30)
    assert same(replay, copy) and copy.frames()["next", "truncated"].sum() == 1
    starts = copy.sample_sequences(500, 2)["observation"][:, 0, 1]
    replay.extend(frames(40, 1))
    copy.extend(frames(40, 1))
    assert 39.0 not in starts and 39.0 not in copy.sample_sequences(500, 2)["observation"][:, 0, 1]


def test_two_futures_of_a_run_do_not_touch_each_other_s_files(tmp_path: Path) -> None:
    replay, files = Replay(50), ReplayFiles(tmp_path)
    replay.extend(frames(0, 20))
    start = files.save(replay)
    replay.extend(frames(20, 20))
    first = files.save(replay)
    other, others = Replay(50), ReplayFiles(tmp_path)
    others.load(other, start)
    other.extend(frames(920, 20))
    second = others.save(other)
    assert [file[0] for file in first["files"]] == ["0-20.pt", "20-40.pt"]
    assert [file[0] for file in second["files"]] == ["0-20.pt", "20-40-2.pt"]
    assert same(replay, reload(tmp_path, first, 50)) and same(other, reload(tmp_path, second, 50))


def test_files_that_were_removed_are_written_again(tmp_path: Path) -> None:
    replay, files = Replay(50), ReplayFiles(tmp_path)
    replay.extend(frames(0, 20))
    files.save(replay)
    (tmp_path / "0-20.pt").unlink()
    assert same(replay, reload(tmp_path, files.save(replay), 50))


def run(folder: Path, **options: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    data = make_data(total_frames=120, capacity=30)
    trainer = fit(SAC(hidden_sizes=[8]), data, Checkpoint(), default_root_dir=folder, **ON, **options)
    return trainer


def test_best_and_last_keep_their_files_and_the_others_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1.0, 9.0, 2.0, 3.0, 4.0]

    def validation_step(self: SAC, episodes: Any, batch_idx: int) -> None:
        value = torch.tensor(values[self.trainer.current_epoch])
        self.log_dict({"eval/return": value, "eval/return_std": value, "eval/episode_length": value}, batch_size=1)

    monkeypatch.setattr(SAC, "validation_step", validation_step)
    run(tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    # Checkpoints at 40 (best: 60), 80, 100, 120 steps; 30 frames are kept, so best has 30-60 and last 90-120.
    names = sorted(os.listdir(folder / "replay"))
    assert names == ["10-40.pt", "100-120.pt", "40-60.pt", "80-100.pt"]
    for name, size in (("best", 30), ("last", 30)):
        saved = torch.load(folder / f"{name}.ckpt", weights_only=True)["OffPolicy"]["replay"]
        assert len(reload(folder / "replay", saved, 30)) == size
    # Going on from the best one repeats what came after it, beside the files of the last one.
    whole = everything_of(tmp_path / "whole")
    data = make_data(total_frames=120, capacity=30)
    algorithm = SAC(hidden_sizes=[8])
    options = {"default_root_dir": tmp_path / "run", "ckpt_path": folder / "best.ckpt", **ON}
    fit(algorithm, data, Checkpoint(), **options)
    again = everything(algorithm, data)
    assert all(torch.equal(again[key].float(), whole[key].float()) for key in whole)


def everything_of(folder: Path) -> dict[str, torch.Tensor]:
    trainer = run(folder)
    return everything(trainer.lightning_module, trainer.datamodule)


def test_leftovers_of_a_kill_are_removed_unless_a_checkpoint_is_unreadable(tmp_path: Path) -> None:
    run(tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "replay" / "7-9.pt").write_bytes(b"half")
    (folder / "mine.ckpt").write_bytes(b"what may this be")
    files = ReplayFiles(folder / "replay")
    files.prune()
    assert (folder / "replay" / "7-9.pt").exists()
    (folder / "mine.ckpt").unlink()
    before = set(os.listdir(folder / "replay"))
    files.prune()
    assert set(os.listdir(folder / "replay")) == before - {"7-9.pt"}


def test_what_is_remembered_does_not_grow_with_the_checkpoints(tmp_path: Path) -> None:
    trainer = run(tmp_path)  # four checkpoints, of which two are left
    remembered = trainer.datamodule._files._known
    assert 1 <= len(remembered) <= len(list((tmp_path / "checkpoints").glob("*.ckpt")))
