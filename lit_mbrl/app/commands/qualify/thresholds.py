"""Thresholds of configs, from `conf/qualification.yaml`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_mbrl.utils.errors import UsageError, did_you_mean

_KEYS = {"threshold", "floor", "seeds_used_for_options", "note"}


@dataclass(frozen=True)
class Threshold:
    """The evaluation return at which a config counts as having learned.

    Attributes:
        config: the config file relative to the thresholds' folder, without `.yaml`.
        file: the config file.
        algorithm: class name.
        threshold: least mean return of the final evaluation.
        floor: return below which no run may end, None if there is none.
        seeds_used_for_options: seeds that say nothing, since the options were chosen on them.
        note: where the numbers come from.
    """

    config: str
    file: Path
    algorithm: str
    threshold: float
    floor: float | None
    seeds_used_for_options: tuple[int, ...]
    note: str


def read_thresholds(path: Path) -> dict[str, Threshold]:
    """Reads the thresholds of all configs that have one.

    Raises:
        UsageError: if the file, or an entry, is not what it should be.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"--thresholds={path}: expected a file with thresholds ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--thresholds={path}: expected YAML, but {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise UsageError(f"--thresholds={path}: expected a mapping of configs to their thresholds")
    return {str(name): _threshold(path, str(name), entry) for name, entry in content.items()}


def _threshold(path: Path, name: str, entry: Any) -> Threshold:
    where, file = f"{path}: {name}", path.parent / f"{name}.yaml"
    if not isinstance(entry, dict) or not _number(entry.get("threshold")):
        raise UsageError(f"{where}: expected a mapping with threshold, a number")
    if unknown := sorted(map(str, set(entry) - _KEYS)):
        raise UsageError(f"{where}.{unknown[0]}: no such key{did_you_mean(unknown[0], _KEYS)}")
    floor, seeds = entry.get("floor"), entry.get("seeds_used_for_options") or []
    if floor is not None and not _number(floor):
        raise UsageError(f"{where}.floor={floor}: expected a number or null")
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise UsageError(f"{where}.seeds_used_for_options={seeds}: expected a list of seeds")
    if not file.is_file():
        raise UsageError(f"{where}: expected the name of a config, but there is no {file}")
    match = re.search(r"^model:\s*\n\s+class_path:\s*([\w.]+)", file.read_text(), re.MULTILINE)
    algorithm = match[1].rpartition(".")[2] if match else "?"
    used = tuple(sorted(set(seeds)))
    return Threshold(
        name, file, algorithm, float(entry["threshold"]), floor, used, " ".join(str(entry.get("note", "")).split())
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choose(known: dict[str, Threshold], wanted: Sequence[str]) -> list[Threshold]:
    """The configs that are named (`sac`, `conf/sac.yaml`) and those of algorithms that are named; none: all.

    Raises:
        UsageError: for a name that is neither.
    """
    chosen: dict[str, Threshold] = {}
    for word in wanted or known:
        name = word.removeprefix("conf/").removesuffix(".yaml")
        found = [known[name]] if name in known else [each for each in known.values() if each.algorithm == word]
        if not found:
            names = {*known, *(each.algorithm for each in known.values())}
            raise UsageError(
                f"{word}: expected a config, or an algorithm, that has a threshold{did_you_mean(name, names)}"
            )
        chosen |= {each.config: each for each in found}
    return list(chosen.values())
