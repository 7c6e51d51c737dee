"""A run folder is not code: what a saved configuration names is lit_mbrl's or an installed package's.

A configuration that comes with a checkpoint was perhaps written by somebody else, and the classes in it are imported by
name. While it is in use, modules stay unimported that Python would find in the working directory, on `PYTHONPATH`,
beside a script or wherever else it has put on `sys.path`.
"""

from __future__ import annotations

import importlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from lit_mbrl.utils.errors import UsageError


class Untrusted(ModuleNotFoundError):
    """A module that a saved configuration asks for is neither ours nor installed."""


class _Finder(MetaPathFinder):
    def __init__(self, source: Path) -> None:
        self.source = source
        self.foreign = _foreign()  # now: a config file is parsed in the folder that it lies in
        self.refused: list[Untrusted] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or "." in fullname or fullname == "lit_mbrl":
            return None
        foreign = [entry for entry in sys.path if not entry or os.path.realpath(entry) in self.foreign]
        found = PathFinder.find_spec(fullname, foreign)
        if found is None:
            return None
        others = [PathFinder.find_spec(fullname, [entry for entry in sys.path if entry not in foreign])]
        others += [
            finder.find_spec(fullname, None)
            for finder in sys.meta_path
            if finder is not self and finder is not PathFinder and hasattr(finder, "find_spec")
        ]
        for spec in others:
            if spec is not None and spec.loader is not None:
                return spec
        where = found.origin or next(iter(found.submodule_search_locations or []), "?")
        self.refused.append(
            Untrusted(
                f"{fullname}: {self.source} names this module, and {where} is no part of lit_mbrl or of an installed "
                "package: read it, then --trust runs it (in Python trust=True)",
                name=fullname,
            )
        )
        raise self.refused[-1]


@contextmanager
def only_installed(source: Path | None) -> Iterator[None]:
    """Keeps modules that are not installed from being imported.

    Args:
        source: where the configuration comes from; None: from the user, who may name any class.

    Raises:
        UsageError: if such a module is asked for.
    """
    if source is None:
        yield
        return
    finder = _Finder(source)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    try:
        yield
    except Exception as error:
        for refused in finder.refused:
            if _is_because_of(error, refused):
                raise UsageError(str(refused)) from error
        raise
    finally:
        sys.meta_path.remove(finder)


def needs_trust(config: Any) -> bool:
    """Returns whether a configuration names a module that is neither ours nor installed, so that `--trust` is needed.

    Args:
        config: as `config.yaml` has it: class paths, and environments as `package:Id-v0` or `torchrl/package.Name`.
    """
    if isinstance(config, Mapping):
        return any(needs_trust(value) for key, value in config.items())
    if isinstance(config, list | tuple):
        return any(map(needs_trust, config))
    if not isinstance(config, str) or not (":" in config or "." in config):
        return False
    root = config.removeprefix("torchrl/").partition(":")[0].partition(".")[0]
    if not root.isidentifier() or root == "lit_mbrl" or root not in sys.modules:  # what a run has named is imported
        return False
    file = getattr(sys.modules[root], "__file__", None)
    return file is not None and _root_of(Path(file), root) in _foreign()


def _root_of(file: Path, name: str) -> str:
    """The entry of `sys.path` under which a module was found."""
    folder = file.parent if file.stem == name else file.parent.parent
    return os.path.realpath(folder)


def _foreign() -> set[str]:
    """The working directory, those of `PYTHONPATH` and of a script, as they are now, but for installed packages'."""
    named = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {os.path.realpath("."), *map(os.path.realpath, [*named, *filter(None, sys.path)])} - _installed()


def _is_because_of(error: BaseException, refused: Untrusted) -> bool:
    following: BaseException | None = error
    while following is not None:
        # jsonargparse and we ourselves put what was wrong into a text of our own.
        if following is refused or str(refused) in " ".join(str(following).split()):
            return True
        following = following.__cause__ or following.__context__
    return False


def _installed() -> set[str]:
    """The folders of the standard library and of installed packages, those in development mode included."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages(), os.path.join(paths[1], "lib-dynload")]
    for folder in list(paths):
        for file in sorted(Path(folder).glob("*.pth")):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            code = ("import ", "import\t", "#")
            paths += [os.path.join(folder, line) for line in lines if line and not line.startswith(code)]
    return set(map(os.path.realpath, paths))
