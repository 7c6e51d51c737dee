"""Imports point one way (`LAYERS`), and what is heavy is imported late (`HEAVY`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Layer -> the layers it may import besides itself. `errors`, `files`, `hooks` and `ranks` are open to all.
LAYERS: dict[str, set[str]] = {
    "lit_mbrl.errors": set(),
    "lit_mbrl.files": set(),
    "lit_mbrl.hooks": set(),
    "lit_mbrl.ranks": set(),
    "lit_mbrl.networks": set(),
    "lit_mbrl.optim": set(),
    "lit_mbrl.returns": set(),
    "lit_mbrl.losses": set(),
    "lit_mbrl.models": {"lit_mbrl.losses", "lit_mbrl.networks"},
    "lit_mbrl.imagination": {"lit_mbrl.models"},
    "lit_mbrl.planners": {"lit_mbrl.networks", "lit_mbrl.models", "lit_mbrl.imagination", "lit_mbrl.returns"},
    "lit_mbrl.algorithms": {
        "lit_mbrl.losses",
        "lit_mbrl.models",
        "lit_mbrl.planners",
        "lit_mbrl.imagination",
        "lit_mbrl.returns",
        "lit_mbrl.networks",
        "lit_mbrl.optim",
    },
    "lit_mbrl.envs": set(),
    "lit_mbrl.components": {"lit_mbrl.user_errors"},
    "lit_mbrl.data": {"lit_mbrl.envs"},
    "callbacks": set(),
    "lit_mbrl.watchdog": set(),
    "lit_mbrl.guard": {"callbacks", "lit_mbrl.output", "lit_mbrl.user_errors"},
    "lit_mbrl.launcher": set(),
    "lit_mbrl.loggers": {"lit_mbrl.watchdog"},
    "lit_mbrl.output": set(),
    "lit_mbrl.overrides": set(),
    "lit_mbrl.parser": {"lit_mbrl.overrides", "lit_mbrl.user_errors"},
    "lit_mbrl.pool": set(),
    "lit_mbrl.preflight": {"lit_mbrl.algorithms", "lit_mbrl.run_folder"},
    "lit_mbrl.run_folder": {"lit_mbrl.data"},
    "lit_mbrl.strategies": {"lit_mbrl.launcher"},
    "lit_mbrl.user_errors": set(),
    "lit_mbrl.options": {"lit_mbrl.user_errors"},
    "lit_mbrl.reports": {"lit_mbrl.options", "lit_mbrl.user_errors"},
}
# The application sees everything; nobody sees it.
ENTRY_POINTS = {
    "lit_mbrl.__main__",
    "lit_mbrl.application",
    "lit_mbrl.arguments",
    "lit_mbrl.cli",
    "lit_mbrl.evaluate",
    "lit_mbrl.model_error",
    "lit_mbrl.qualify",
    "lit_mbrl.video",
}
OPEN_TO_ALL = {"lit_mbrl.errors", "lit_mbrl.files", "lit_mbrl.hooks", "lit_mbrl.ranks"}
HEAVY = {"envpool", "pybullet", "pybullet_envs_gymnasium", "dm_control", "mujoco", "wandb", "matplotlib", "imageio"}


class Import(NamedTuple):
    """One import: the module named, its line, and whether it runs when the file is imported."""

    module: str
    line: int
    at_import: bool


def imports(source: str, module: str) -> Iterator[Import]:
    """Imports of a file, relative ones resolved; `from a import b` gives `a.b`, so that submodules are seen."""
    tree = ast.parse(source)
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(outer)
        for inner in ast.walk(outer)
    }
    package = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: -node.level], *([node.module] if node.module else [])] if node.level else [node.module]
            names = [".".join([*map(str, base), alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, id(node) not in late)


def is_type_checking(node: ast.AST) -> bool:
    """Whether a node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def layer_of(module: str) -> str | None:
    """The layer or entry point that a dotted name of ours lies in; None for others and for `lit_mbrl` itself."""
    own = [*LAYERS, *ENTRY_POINTS]
    return next((layer for layer in own if module == layer or module.startswith(layer + ".")), None)


def violations(source: str, module: str) -> list[str]:
    """What a file imports against the rules, one line each."""
    layer, found = layer_of(module), []
    for imported in imports(source, module):
        target = layer_of(imported.module)
        where = f"{module}:{imported.line} imports {imported.module}"
        if imported.at_import and imported.module.partition(".")[0] in HEAVY:
            found.append(f"{where} at the top of the file; import it in the function that needs it")
        if target is None or target == layer or target in OPEN_TO_ALL or layer in ENTRY_POINTS:
            continue
        if layer is None or target not in LAYERS[layer]:
            found.append(f"{where}, which {layer or 'the package itself'} may not")
    return found


def files() -> list[tuple[Path, str]]:
    """Our Python files and their dotted names; a package's `__init__` keeps that last part."""
    paths = [path for top in ("lit_mbrl", "callbacks") for path in (ROOT / top).rglob("*.py")]
    return [(path, ".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in sorted(paths)]


@pytest.mark.parametrize(("path", "module"), files(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(path: Path, module: str) -> None:
    assert violations(path.read_text(encoding="utf-8"), module) == []


def test_every_file_has_a_layer() -> None:
    homeless = [module for _, module in files() if layer_of(module) is None and module != "lit_mbrl.__init__"]
    assert homeless == [], "name the new package and what it may import in LAYERS"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lit_mbrl.losses.soft_q", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.losses.soft_q", "from lit_mbrl import algorithms"),
        ("lit_mbrl.losses.soft_q", "from ..networks import MLP"),
        ("lit_mbrl.networks.mlp", "import lit_mbrl.losses.soft_q as soft_q"),
        ("lit_mbrl.envs.make", "def f():\n    from lit_mbrl.data import OffPolicy"),
        ("lit_mbrl.data.off_policy", "if TYPE_CHECKING:\n    from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.algorithms.sac", "from lit_mbrl.data import OffPolicy"),
        ("lit_mbrl.algorithms.sac", "import lit_mbrl.cli"),
        ("lit_mbrl.algorithms.sac", "from callbacks import SoftTargetUpdate"),
        ("callbacks.soft_target_update", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.__init__", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.envs.make", "import mujoco"),
        ("callbacks.wandb_run", "from wandb.sdk import login"),
    ],
)
def test_violations_are_seen(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lit_mbrl.algorithms.sac", "from lit_mbrl.losses import q_loss\nfrom lit_mbrl.errors import require"),
        ("lit_mbrl.algorithms.mve", "from lit_mbrl.algorithms.sac_svg import SACSVG"),
        ("lit_mbrl.models.recurrent", "from ..networks.mlp import MLP"),
        ("lit_mbrl.cli", "from lit_mbrl import algorithms, data\nimport callbacks"),
        ("lit_mbrl.envs.make", "def f():\n    import mujoco"),
        ("callbacks.wandb_run", "if TYPE_CHECKING:\n    import wandb"),
        ("callbacks.wandb_run", "import torch\nfrom lit_mbrl.errors import UserError"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(source, module) == []
