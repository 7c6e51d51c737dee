"""Nothing of the user's is deleted, overwritten or continued by mistake."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.app.cli import main
from lit_mbrl.app.run_folder import claim, find_checkpoint, folder_of, locked, require_no_run, run_name
from lit_mbrl.callbacks import Checkpoint
from lit_mbrl.data.buffers.files import ReplayFiles
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC, load, rows

HALF = [*SAC, "--trainer.max_epochs=1"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Meddle(Callback):
    """Does something to the run folder at the end of a round."""

    def __init__(self, what: str, round: int = 25) -> None:
        self.what, self.round = what, round

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == self.round:
            folder = Path(trainer.default_root_dir)
            if self.what == "remove":
                shutil.rmtree(folder)
            elif self.what == "move":
                folder.rename("moved")
            elif self.what == "checkpoints":
                shutil.rmtree(folder / "checkpoints")
            else:
                (folder / self.what).unlink()


# ---------------------------------------------------------------------- files of others
@pytest.mark.parametrize(
    "name", [".", "..", "", "../mine", "a/b", "/mine", "replay", "wandb", "metrics.csv", "x" * 300, "a\nb"]
)
def test_the_folder_for_checkpoints_is_a_name_of_its_own(name: str) -> None:
    with pytest.raises(OptionError, match="a name of its own inside the run folder"):
        Checkpoint(folder=name)


def test_only_files_of_our_own_making_are_removed(tmp_path: Path) -> None:
    replay = tmp_path / "replay"
    (replay / "1-2.pt").mkdir(parents=True)
    for name in ("thesis.tex", "0-40", "notes.pt", "a-b.pt", ".hidden", "0-40.pt", "0-40-2.pt"):
        (replay / name).touch()
    ReplayFiles(replay).prune()
    assert sorted(os.listdir(replay)) == [".hidden", "0-40", "1-2.pt", "a-b.pt", "notes.pt", "thesis.tex"]


def test_another_name_for_the_checkpoints_works_throughout(work: Path, capfd: pytest.CaptureFixture) -> None:
    options = ["--checkpoint.folder=saved", "--trainer.default_root_dir=run"]
    assert main([*HALF, *options]) == 0
    assert "Everything is in run: metrics.csv, saved/{last,best}.ckpt, config.yaml" in capfd.readouterr().out
    assert main([*SAC, *options]) == 2
    assert main([*SAC, *options, "--ckpt_path=last"]) == 0
    assert load(work / "run" / "saved" / "last.ckpt")["lit_mbrl"]["env_steps"] == 60
    shutil.move("run", "moved")
    assert main(["fit", "--ckpt_path=moved/saved/last.ckpt", "--data.total_frames=80"]) == 0
    assert not (work / "run").exists()
    assert load(work / "moved" / "saved" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80


# ---------------------------------------------------------------------- a run that is there
def test_a_new_run_into_the_folder_of_another_is_refused(
    finished: Path, work: Path, capfd: pytest.CaptureFixture
) -> None:
    shutil.copytree(finished, "run")
    before = contents(work)
    again = [*SAC, "--trainer.default_root_dir=run"]
    other = [*again, f"--ckpt_path={finished / 'checkpoints' / 'last.ckpt'}"]
    for command in (again, [*again, "--config=run/config.yaml"], other):
        assert main(command) == 2
        assert capfd.readouterr().err == (
            "error: --trainer.default_root_dir=run: expected a new folder, or --ckpt_path=last to go on with the run "
            "that is in this one\n"
        )
    assert contents(work) == before


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "replay/thesis.tex", "checkpoints/notes.txt"])
def test_files_of_others_in_the_folder_are_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "replay").mkdir()
    require_no_run(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(OptionError, match=f"has a {name.partition('/')[0]} that no run has left there"):
        require_no_run(tmp_path)
    (tmp_path / ".lock").touch()  # a run that was killed before its first checkpoint
    require_no_run(tmp_path)


# ---------------------------------------------------------------------- which run goes on
def test_a_copied_run_goes_on_where_it_lies(finished: Path, work: Path) -> None:
    shutil.copytree(finished, "copy")
    text = (work / "copy" / "config.yaml").read_text()
    # As earlier versions have saved it.
    (work / "copy" / "config.yaml").write_text(
        text.replace("default_root_dir: null", f"default_root_dir: {finished.as_posix()}")
    )
    before = contents(finished)
    for words in (["--data.total_frames=80"], ["--config=copy/config.yaml", "--data.total_frames=100"]):
        assert main(["fit", "--ckpt_path=copy/checkpoints/last.ckpt", *words]) == 0
    assert contents(finished) == before
    assert load(work / "copy" / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 100
    assert rows(work / "copy")[: len(rows(finished))] == rows(finished)


def test_the_folder_of_a_checkpoint(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of(Path("a/checkpoints/last.ckpt")) == Path("a")
    assert folder_of(Path("a/saved/last.ckpt")) is None
    assert folder_of(Path("a/saved/last.ckpt"), "saved") == Path("a")
    (work / "a" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(work / "a" / "checkpoints")
    for name in ("last.ckpt", "./last.ckpt", "../checkpoints/last.ckpt"):
        assert folder_of(Path(name)) == work / "a", name


def a_run(folder: Path, saved_at: float | None, date: float) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    content = {"lit_mbrl": {}, "state_dict": {}, "optimizer_states": []}
    torch.save(content | ({} if saved_at is None else {"saved_at": saved_at}), path)
    os.utime(path, (date, date))
    return path


def test_the_newest_run_is_not_told_by_dates_alone(work: Path) -> None:
    family = Path("runs/sac/Pendulum-v1/seed0")
    first = a_run(family.with_name("seed0-1"), 100.0, 9.0)
    second = a_run(family.with_name("seed0-2"), 200.0, 5.0)
    assert find_checkpoint("last", family, None) == second
    assert find_checkpoint("last", family, str(first.parent.parent)) == first
    a_run(family.with_name("seed0-3"), None, 150.0)  # an earlier version's
    assert find_checkpoint("last", family, None) == second
    shutil.copytree(second.parent.parent, family.with_name("seed0-copy"))
    with pytest.raises(OptionError, match="a path, since these are copies of one checkpoint: .*seed0-2.*seed0-copy"):
        find_checkpoint("last", family, None)


def test_a_run_that_was_killed_between_best_and_last_goes_on(work: Path) -> None:
    path = a_run(work / "run", 1.0, 1.0)
    path.rename(path.with_name("best.ckpt"))
    assert find_checkpoint("last", Path("runs/x/y/seed0"), "run") == Path("run/checkpoints/best.ckpt")
    with pytest.raises(OptionError, match="a new folder, or --ckpt_path=last"):
        require_no_run(Path("run"))
    (work / "run" / ".lock").touch()
    path.with_name("last.ckpt.tmp").touch()  # which a kill at that moment leaves: it can begin anew, too
    require_no_run(Path("run"))


# ---------------------------------------------------------------------- in mid-run
@pytest.mark.parametrize("what", ["remove", "move"])
def test_a_run_whose_folder_goes_away_stops(what: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    meddle = [f"--trainer.callbacks+={__name__}.Meddle", f"--trainer.callbacks.what={what}"]
    assert main([*SAC, *meddle, "--trainer.default_root_dir=run"]) == 1
    out, err = capfd.readouterr()
    assert "Finished" not in out and not (work / "run").exists()
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert line.startswith("error: the run folder run has been removed or moved while the run went on. At ")


@pytest.mark.parametrize("what", ["metrics.csv", "config.yaml", "checkpoints"])
@pytest.mark.filterwarnings("ignore:.*has been removed while the run went on")
def test_what_goes_away_in_a_run_is_made_anew(what: str, finished: Path, work: Path) -> None:
    meddle = [f"--trainer.callbacks+={__name__}.Meddle", f"--trainer.callbacks.what={what}"]
    assert main([*SAC, *meddle, "--trainer.default_root_dir=run"]) == 0
    assert rows(work / "run") == rows(finished)
    assert (work / "run" / "config.yaml").is_file()
    assert load(work / "run" / "checkpoints" / "last.ckpt")["OffPolicy"]["replay"]["size"] == 60


# ---------------------------------------------------------------------- names
def test_runs_of_one_second_have_a_folder_each(work: Path) -> None:
    folder = Path("runs/sac/Pendulum-v1/seed0-20200101-000000")
    assert [claim(folder).name for _ in range(3)] == [f"{folder.name}{suffix}" for suffix in ("", "-2", "-3")]


def test_a_folder_that_is_taken_meanwhile_is_left_to_the_other(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20200101-000000")
    taken = work / "runs/sac/Pendulum-v1/seed0-20200101-000000"
    check = Checkpoint.setup
    monkeypatch.setattr("lit_mbrl.app.application.networks", taking(taken))
    assert Checkpoint.setup is check
    assert main(HALF) == 0
    assert list(taken.iterdir()) == []
    folder = taken.with_name(f"{taken.name}-2")
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "metrics.csv", "checkpoints"}
    assert f"run folder: {folder.relative_to(work)}\n" in capfd.readouterr().out


def taking(folder: Path) -> Callable[..., Any]:
    """Another run makes the folder while this one looks at its networks."""
    from lit_mbrl.app.preflight import networks

    def networks_and_more(*args: Any) -> Any:
        folder.mkdir(parents=True)
        return networks(*args)

    return networks_and_more


@pytest.mark.parametrize("name", ["x" * 300, "ä" * 200, "..", "a\x1b[31mb\n", "x" * 99 + "ä"])
def test_any_environment_gives_a_name_for_a_folder(name: str, work: Path) -> None:
    family = run_name([f"{name}.yaml"], "SAC", name, 0)
    family.mkdir(parents=True)
    assert len(family.parts) == 4 and str(family).isprintable() and ".." not in family.parts
    assert run_name([], "SAC", "x" * 300, 0) != run_name([], "SAC", "x" * 301, 0)


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keys")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OptionError, match="a folder that can be written to"), locked(tmp_path):
        raise AssertionError
    assert (tmp_path / "mine").read_text() == "keys"
