"""Imports point one way (`LAYERS`) and never in a circle, and what is heavy is imported late (`HEAVY`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# Layer -> the layers it may import besides itself and `utils`, which is open to all.
LAYERS: dict[str, set[str]] = {
    "lit_mbrl.utils": set(),
    "lit_mbrl.networks": set(),
    "lit_mbrl.losses": set(),
    "lit_mbrl.returns": set(),
    "lit_mbrl.models": {"lit_mbrl.networks", "lit_mbrl.losses", "lit_mbrl.returns"},
    "lit_mbrl.imagination": {"lit_mbrl.models"},
    "lit_mbrl.planners": {"lit_mbrl.imagination", "lit_mbrl.models", "lit_mbrl.networks", "lit_mbrl.returns"},
    "lit_mbrl.training": {"lit_mbrl.models", "lit_mbrl.networks", "lit_mbrl.losses", "lit_mbrl.returns"},
    "lit_mbrl.algorithms": {
        "lit_mbrl.training",
        "lit_mbrl.imagination",
        "lit_mbrl.planners",
        "lit_mbrl.models",
        "lit_mbrl.networks",
        "lit_mbrl.losses",
        "lit_mbrl.returns",
    },
    "lit_mbrl.envs": set(),
    "lit_mbrl.data": {"lit_mbrl.envs"},
    "lit_mbrl.reports": set(),
    "lit_mbrl.papers": set(),
    "lit_mbrl.callbacks": set(),
}
OPEN_TO_ALL = "lit_mbrl.utils"
# The command line and what Python programs use see everything; nobody sees them but the package itself.
ENTRY_POINTS = {"lit_mbrl.__main__", "lit_mbrl.app", "lit_mbrl.api"}
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
        if target is None or target in (layer, OPEN_TO_ALL) or layer in ENTRY_POINTS:
            continue
        if layer is None and target == "lit_mbrl.api":
            continue
        if layer is None or target not in LAYERS[layer]:
            found.append(f"{where}, which {layer or 'the package itself'} may not")
    return found


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty if there is none.

    Imports in functions, for type checkers and by `importlib`, with the name of a module as a string, count as well.

    Args:
        sources: dotted names, a package's ending in `__init__`, and their text.
    """
    names = {module.removesuffix(".__init__"): module for module in sources}
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        if module == "lit_mbrl.__init__":
            continue  # what Python programs use by its names is imported when it is asked for, by them alone
        mentioned = [imported.module for imported in imports(source, module)]
        strings = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
        mentioned += [value for value in strings if isinstance(value, str) and value in names]
        graph[module] = {file for name in mentioned if (file := file_of(name, names)) not in (None, module)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def file_of(name: str, names: Mapping[str, str]) -> str | None:
    """The module of ours that a dotted name lies in, `a.b` for `a.b.Class`; None for those of others."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return names.get(name)


def files() -> list[tuple[Path, str]]:
    """Our Python files and their dotted names; a package's `__init__` keeps that last part."""
    paths = sorted((ROOT / "lit_mbrl").rglob("*.py"))
    return [(path, ".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


@pytest.mark.parametrize(("path", "module"), files(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(path: Path, module: str) -> None:
    assert violations(path.read_text(encoding="utf-8"), module) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle({module: path.read_text(encoding="utf-8") for path, module in files()}) == []


def test_every_file_has_a_layer() -> None:
    homeless = [module for _, module in files() if layer_of(module) is None and module != "lit_mbrl.__init__"]
    assert homeless == [], "name the new package and what it may import in LAYERS"


def test_few_files_lie_outside_of_the_folders() -> None:
    assert len(list((ROOT / "lit_mbrl").glob("*.py"))) <= 6


def test_algorithms_are_papers() -> None:
    others = [
        path.name
        for path in (ROOT / "lit_mbrl" / "algorithms").rglob("*.py")
        if path.name != "__init__.py" and not names_a_paper(path.read_text(encoding="utf-8"))
    ]
    assert others == [], "what no paper is about belongs into lit_mbrl/training"


def names_a_paper(source: str) -> bool:
    """Whether one of a file's classes says which paper it is."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    statements = [statement for node in classes for statement in node.body if isinstance(statement, ast.Assign)]
    return any(ast.unparse(target) == "paper" for statement in statements for target in statement.targets)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lit_mbrl.losses.soft_q", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.losses.soft_q", "from lit_mbrl import algorithms"),
        ("lit_mbrl.losses.soft_q", "from ..networks import MLP"),
        ("lit_mbrl.networks.mlp", "import lit_mbrl.losses.soft_q as soft_q"),
        ("lit_mbrl.utils.files", "from lit_mbrl.losses import q_loss"),
        ("lit_mbrl.envs.make", "def f():\n    from lit_mbrl.data import OffPolicy"),
        ("lit_mbrl.data.off_policy", "if TYPE_CHECKING:\n    from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.data.off_policy", "from lit_mbrl.training.algorithm import Algorithm"),
        ("lit_mbrl.algorithms.sac", "from lit_mbrl.data import OffPolicy"),
        ("lit_mbrl.algorithms.sac", "import lit_mbrl.app.cli"),
        ("lit_mbrl.algorithms.sac", "from lit_mbrl.callbacks import SoftTargetUpdate"),
        ("lit_mbrl.training.algorithm", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.training.algorithm", "from lit_mbrl.data import OffPolicy"),
        ("lit_mbrl.models.base", "from lit_mbrl.training.optim import Adam"),
        ("lit_mbrl.reports.curves", "from lit_mbrl.app.messages import explain"),
        ("lit_mbrl.callbacks.soft_target_update", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.__init__", "from lit_mbrl.algorithms import SAC"),
        ("lit_mbrl.envs.make", "import mujoco"),
        ("lit_mbrl.callbacks.wandb_run", "from wandb.sdk import login"),
    ],
)
def test_violations_are_seen(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lit_mbrl.algorithms.sac", "from lit_mbrl.losses import q_loss\nfrom lit_mbrl.utils.errors import require"),
        ("lit_mbrl.algorithms.mve", "from lit_mbrl.algorithms.sac_svg import SACSVG"),
        ("lit_mbrl.algorithms.sac", "from lit_mbrl.training.algorithm import Algorithm"),
        ("lit_mbrl.models.recurrent", "from ..networks.mlp import MLP"),
        ("lit_mbrl.app.cli", "from lit_mbrl import algorithms, callbacks, data"),
        ("lit_mbrl.envs.make", "def f():\n    import mujoco"),
        ("lit_mbrl.callbacks.wandb_run", "if TYPE_CHECKING:\n    import wandb"),
        ("lit_mbrl.callbacks.wandb_run", "import torch\nfrom lit_mbrl.utils.errors import OptionError"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(source, module) == []


@pytest.mark.parametrize(
    "back",
    [
        "from p.a import A",
        "from p import a",
        "from .a import A",
        "import p.a as other",
        "def f():\n    from p.a import A",
        "if TYPE_CHECKING:\n    from p.a import A",
        "import importlib\nimportlib.import_module('p.a')",
        "from p.c import C",  # which imports it
        "from p import A",  # which the package has from it
    ],
)
def test_circles_are_seen(back: str) -> None:
    sources = {"p.__init__": "from p.a import A", "p.a": "from p.b import B", "p.c": "from p.a import A", "p.b": back}
    found = circle(sources)
    assert found[0] == found[-1] and {"p.a", "p.b"} <= set(found)


def test_two_ways_to_a_file_are_no_circle() -> None:
    sources = {"p.__init__": "from p.a import A", "p.a": "from p import b, c", "p.b": "from p.c import C", "p.c": ""}
    assert circle(sources) == []
