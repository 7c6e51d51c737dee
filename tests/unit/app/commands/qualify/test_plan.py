"""The plan: configs and thresholds, seeds, paths, command lines, fingerprints; and every mistake in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.cli import CONF, main
from lit_mbrl.app.commands.qualify.plan import plan
from lit_mbrl.app.commands.qualify.report import seed_ranges
from lit_mbrl.app.commands.qualify.thresholds import choose, read_thresholds
from lit_mbrl.app.defaults import read_config
from lit_mbrl.app.experiment import sources
from lit_mbrl.app.experiment.paths import PATHS, FloatPath, read_paths
from lit_mbrl.app.experiment.run import fingerprint, read_seeds

KNOWN = read_thresholds(CONF / "qualification.yaml")


def test_seeds_are_ranges_and_lists() -> None:
    assert read_seeds("10-12,25,11") == [10, 11, 12, 25] and read_seeds("0") == [0]
    for text in ("0", "3-5", "1-2,4,7-9,25"):
        assert seed_ranges(read_seeds(text)) == text


def test_configs_are_chosen_by_name_file_or_algorithm() -> None:
    def names(*words: str) -> list[str]:
        return [goal.config for goal in choose(KNOWN, words)]

    assert names("sac") == names("conf/sac.yaml") == names("sac.yaml") == names("SAC") == ["sac"]
    assert names("MVE", "sac", "mve") == ["mve", "mve_svg", "sac"]
    assert names() == list(KNOWN)


def test_every_threshold_lies_between_random_and_best_returns() -> None:
    # Random actions, and the most that there is, in these environments.
    ranges = {
        "Pendulum-v1": (-1233, 0),
        "InvertedPendulum-v5": (10, 1000),
        "goals/BitFlip": (-15, -5.5),  # never there; the shortest ways
        "goals/PointMass": (-60, -4),
        "CartPole-v1": (25, 500),
        "maze/Dyna": (0.15, 1),
        "maze/Shortcut": (0.37, 1),
    }
    ranges["pets/CartPole"] = (0, 200)
    shorter = {"pilco": (0, 57)}  # 75 steps, of which the swing takes 18 or more
    unbounded = {"poplin/HalfCheetah": (-58, 30)}  # mean and standard deviation of random actions, 200 steps
    for goal in KNOWN.values():
        environment = "Pendulum-v1"
        for file in (CONF / "base.yaml", goal.file):
            data = (read_config(file).get("data") or {}).get("init_args", {})
            environment = data.get("env", {}).get("name", environment)
        if environment in unbounded:
            low, std = unbounded[environment]
            assert low + 2.5 * std < goal.threshold, goal.config
        else:
            low, high = shorter.get(goal.config, ranges[environment])
            assert low + 0.7 * (high - low) < goal.threshold < high, goal.config
        assert goal.floor is None or low < goal.floor < goal.threshold
        assert not set(goal.seeds_used_for_options) & set(read_seeds("10-19")), "the default seeds are no evidence"
        assert goal.note


def test_paths_set_their_own_variables_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    monkeypatch.setenv("OTHER", "kept")
    own = {"ATEN_CPU_CAPABILITY", "MKL_CBWR"}
    environments = {name: path.environment() for name, path in PATHS.items()}
    assert {name: {key: value[key] for key in own & value.keys()} for name, value in environments.items()} == {
        "native": {},
        "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
        "mkl-avx2": {"MKL_CBWR": "AVX2"},
        "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
        "two-threads": {},
        "compiled": {},
    }
    assert all(environment["OTHER"] == "kept" for environment in environments.values())
    assert [path.name for path in read_paths("compiled,native,compiled")] == ["compiled", "native"]


def test_a_path_without_vector_extensions_rounds_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # which native does not inherit
    native, plain = sources.probe(PATHS["native"]), sources.probe(PATHS["aten-default"])
    assert plain["cpu_capability"] == "DEFAULT"
    if native["cpu_capability"] != "DEFAULT":  # a processor has them
        assert native["rounding"] != plain["rounding"]
    assert sources.probe(PATHS["native"]) == native


def test_plan_takes_the_configs_seed_by_seed(tmp_path: Path, work: Path) -> None:
    goals = choose(KNOWN, ["sac", "ppo"])
    runs = plan(goals, read_paths("native,two-threads"), [10, 11], tmp_path, ["--data.total_frames=60"])
    names = [run.name for run in runs]
    assert names[:4] == [f"{c} {p} seed 10" for c in ("sac", "ppo") for p in ("native", "two-threads")]
    assert len(names) == len(set(names)) == 8 and all(name.endswith("11") for name in names[4:])
    run = runs[1]
    folder = tmp_path / "sac" / "two-threads" / "seed_10"
    assert run.folder == folder
    assert run.command(resume=True) == [
        *("-m", "lit_mbrl", "fit", "--config", str(CONF / "sac.yaml")),
        *("--seed_everything=10", f"--trainer.default_root_dir={folder}", "--trainer.logger=false"),
        *("--data.total_frames=60", "--num_threads=2", "--ckpt_path=last"),
    ]
    assert run.command(resume=False) == run.command(resume=True)[:-1]


def test_fingerprint_knows_config_options_and_path_but_no_comments(tmp_path: Path) -> None:
    config = tmp_path / "sac.yaml"
    config.write_text((CONF / "sac.yaml").read_text())
    native, options = PATHS["native"], ["--data.total_frames=60"]

    def mark(config: Path, path: FloatPath, options: list[str]) -> str:
        return fingerprint([config], [*options, *path.options], path.variables)

    first = mark(config, native, options)
    config.write_text("# Why.\n" + config.read_text())
    assert mark(config, native, options) == first
    others = [
        mark(config, native, ["--data.total_frames=61"]),
        mark(config, PATHS["two-threads"], options),
        mark(config, PATHS["aten-default"], options),
    ]
    config.write_text(config.read_text().replace("1.0e-3", "1.1e-3", 1))
    others.append(mark(config, native, options))
    assert len({first, *others}) == 5


def test_dry_run_prints_what_it_would_run_and_touches_nothing(work: Path, capfd: pytest.CaptureFixture) -> None:
    command = ["qualify", "SAC", "--seeds", "10-12", "--paths=native,mkl-avx2", "--dry-run", "--", "--data.capacity=9"]
    assert main(command) == 0
    first, *lines = capfd.readouterr().out.splitlines()
    assert first == "6 runs: 0 finished, 6 to run, 0 of them to resume"
    assert len(lines) == 6 and all(line.endswith(" --data.capacity=9") for line in lines)
    assert lines[1].startswith("MKL_CBWR=AVX2 python -m lit_mbrl fit --config ")
    assert "--trainer.default_root_dir=runs/qualify/sac/mkl-avx2/seed_10 " in lines[1]
    assert list(work.iterdir()) == []


def test_help_needs_no_torch() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(CONF.parent)!r}); from lit_mbrl.app.cli import main; "
        "assert main(['qualify', '--help']) == 0; assert not {'torch', 'gymnasium', 'lightning'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sac", "--seeds=10-"], "--seeds=10-: expected seeds, as 10-19,25"),
        (["--seeds=19-10"], "--seeds=19-10: expected seeds, as 10-19,25"),
        (["--seeds=-3"], "--seeds=-3: expected seeds, as 10-19,25"),
        (
            ["sac_svg", "--seeds", "1-3"],
            "--seeds: expected seeds on which the options of sac_svg were not chosen; 1, 2 were (seeds_used",
        ),
        (["sac", "--seeds=0,10"], "--seeds: expected seeds on which the options of sac were not chosen; 0 was (seeds"),
        (["--paths=natif"], "--paths=natif: expected some of native, mkl-compatible, mkl-avx2, aten-default, two-th"),
        (["--paths=native,"], "--paths=native,: expected some of native, mkl-compatible, "),
        (["--jobs=0"], "--jobs=0: expected an integer > 0"),
        (["--random-episodes=no"], "--random-episodes=no: expected an integer > 0"),
        (["sca"], "sca: expected a config, or an algorithm, that has a threshold (did you mean 'sac'?)"),
        (["dreamer"], "dreamer: expected a config, or an algorithm, that has a threshold"),
        (["--seed=3"], "--seed=3: no such option (did you mean '--seeds'?)"),
        (["--out"], "--out: expected a value"),
        (["--out=file", "sac"], "--out=file/sac/native: expected a folder that can be written to"),
        (["sac", "--", "data.total_frames=3"], "data.total_frames=3: expected an option of fit, as --name=value"),
        (["sac", "--", "--data.total_frames", "3"], "--data.total_frames: expected an option of fit, as --name=value"),
        (["sac", "--", "--seed_everything=3"], "--seed_everything=3: expected another option, qualify gives this one"),
        (["--table=nowhere"], "--table=nowhere: expected a folder with the results of qualify, but it has no .json"),
        (["--table=strange"], "strange/a.json: expected the results of qualify"),
        (["--thresholds=none.yaml"], "--thresholds=none.yaml: expected a file with thresholds (No such file or"),
        (["--thresholds=strange/list.yaml"], "--thresholds=strange/list.yaml: expected a mapping of configs to their"),
        (["--thresholds=strange/torn.yaml"], "--thresholds=strange/torn.yaml: expected YAML, but "),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    (work / "file").touch()
    (work / "strange").mkdir()
    (work / "strange" / "a.json").write_text("[1]")
    (work / "strange" / "list.yaml").write_text("- sac\n")
    (work / "strange" / "torn.yaml").write_text("sac: {threshold: 3\n")
    before = sorted(work.rglob("*"))
    assert main(["qualify", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {line}"), err
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"floor": 3}, "expected a mapping with threshold, a number"),
        ({"threshold": "high"}, "expected a mapping with threshold, a number"),
        (3, "expected a mapping with threshold, a number"),
        ({"threshold": 3, "flor": 2}, ".flor: no such key (did you mean 'floor'?)"),
        ({"threshold": 3, "floor": "low"}, ".floor=low: expected a number or null"),
        ({"threshold": 3, "seeds_used_for_options": 3}, ".seeds_used_for_options=3: expected a list of seeds"),
    ],
)
def test_a_mistake_in_a_threshold(entry: Any, line: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    (work / "sac.yaml").write_text((CONF / "sac.yaml").read_text())
    (work / "q.yaml").write_text(yaml.safe_dump({"sac": entry}))
    assert main(["qualify", "--thresholds=q.yaml", "--dry-run"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: q.yaml: sac") and line in err
    (work / "q.yaml").write_text(yaml.safe_dump({"other": {"threshold": 3}}))
    assert main(["qualify", "--thresholds=q.yaml", "--dry-run"]) == 2
    assert "q.yaml: other: expected the name of a config, but there is no other.yaml" in capfd.readouterr().err
