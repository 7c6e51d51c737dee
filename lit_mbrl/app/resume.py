"""Compares a resumed run with the one that wrote the checkpoint: changes take effect, or are refused by name.

A class names in `fixed_on_resume` the options that a running experiment has behind it, or that are its very identity;
every other option takes effect from the checkpoint on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lit_mbrl.app.checkpoints import CheckpointInfo
from lit_mbrl.app.stages import restart_from
from lit_mbrl.utils.errors import OptionError

_FREE = ("data.env.workers", "data.env.max_eval_steps", "data.env.timeout")  # how, and not which, environment
# Where the run is and what it has started from, not what it does.
_ELSEWHERE = ("ckpt_path", "config", "init_from", "init_parts", "stage", "trainer.default_root_dir")
_MISSING = object()


def with_changes(
    saved: CheckpointInfo, config: Mapping[str, Any], classes: Mapping[str, Any]
) -> tuple[CheckpointInfo, list[str]]:
    """Compares a configuration with the checkpoint's; another algorithm is refused later, by its weights.

    Args:
        saved: the checkpoint.
        config: that of the command line.
        classes: of the algorithm, `"model"`, and of the data module, `"data"`.

    Returns:
        The checkpoint, or that of an earlier stage if the changes concern one that has begun; the changes in words.

    Raises:
        OptionError: if an option differs that cannot change.
    """
    if saved.config is None or saved.algorithm != classes["model"].__name__:
        return saved, []
    fixed = [f"{section}.{name}" for section, cls in classes.items() for name in cls.fixed_on_resume]
    changes = config_diff(saved.config, config, fixed)
    saved, anew = restart_from(saved, changes, classes["model"].stage_options)
    return saved, in_words(changes) + ([anew] if anew else [])


def config_diff(
    saved: Mapping[str, Any], config: Mapping[str, Any], fixed_on_resume: Iterable[str]
) -> dict[str, tuple[Any, Any]]:
    """Returns old and new value of the options that differ.

    Args:
        saved: the configuration in the checkpoint, as `config.yaml` has it.
        config: that of the command line.
        fixed_on_resume: options, and sections as `data.env`, that cannot change; `_FREE` of them can.

    Raises:
        OptionError: if one of those differs.
    """
    fixed = ("seed_everything", *fixed_on_resume)
    before, now = ({name: value for name, value in flatten(tree) if value != {}} for tree in (saved, config))
    found = {}
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, _MISSING), now.get(name, _MISSING)
        if old == new or name in _ELSEWHERE:
            continue
        free_form = ".kwargs" in name  # where an entry may be new; elsewhere a new name is one of a newer version
        if (old is _MISSING or new is _MISSING) and not free_form:
            continue
        old, new = ("unset" if value is _MISSING else value for value in (old, new))
        if any(name == option or name.startswith(f"{option}.") for option in fixed) and name not in _FREE:
            raise OptionError(name, new, f"{old}, as in the checkpoint: a resumed run cannot change it")
        found[name] = old, new
    return found


def in_words(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Says each change, as `model.gamma 0.99 -> 0.9`."""
    return [
        name if name == "trainer.callbacks" and isinstance(old, list) else f"{name} {old} -> {new}"
        for name, (old, new) in changes.items()
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries under the names of the command line: `model.horizon`, and `model` for the class."""
    for key, value in tree.items():
        if isinstance(value, dict) and key == "init_args":
            yield from flatten(value, prefix)
        elif isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        elif key == "class_path":
            yield prefix.rstrip("."), value.rpartition(".")[2]
        else:
            yield f"{prefix}{key}", value
