"""What the documents show exists and works."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]


def blocks(document: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    dead = [link for link in links if not link.startswith("http") and not (path.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_configs_named_exist(document: str) -> None:
    named = set(re.findall(r"conf/[\w/]+\.yaml", (ROOT / document).read_text())) - {"conf/sac_lite.yaml"}
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_readme_names_every_config() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in sorted((ROOT / "conf").glob("*.yaml")) if f"conf/{path.name}" not in readme] == []


def test_ci_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    program = re.search(r"command=\$\((awk .*? README\.md)\)", script, re.DOTALL)
    assert program is not None
    found = subprocess.run(["bash", "-c", program[1]], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert found.strip() == blocks("README.md", "bash")[1].strip()
    assert found.strip().endswith(".venv/bin/python -m pytest -q -n 2")


def test_hooks_are_the_linters_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [f"run '.venv/bin/{hook['entry']}'" in script for hook in hooks] == [True] * 3


def test_every_metric_is_explained() -> None:
    names = set()
    for path in (ROOT / "lit_mbrl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= set(re.findall(r"^(?:q|policy|train|eval|time|model|loss)/[a-z_]+$", node.value))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Update", "Objective"):
                name = node.args[0]
                if isinstance(name, ast.Constant):  # an objective's update takes its name
                    names.add(f"loss/{name.value}")
    assert {"eval/return", "loss/actor", "loss/dynamics", "policy/alpha"} <= names
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in sorted(names) if f"`{name}" not in text] == []


def test_contributing_s_example_works() -> None:
    algorithm, test = blocks("CONTRIBUTING.md", "python")
    names: dict = {"__name__": "sac_lite"}
    exec(algorithm, names)
    checks: dict = {}
    # The example imports its own file, which is not part of the package.
    exec(test.replace("from lit_mbrl.algorithms.sac_lite import SACLite\n", ""), checks)
    checks["SACLite"] = names["SACLite"]
    torch.manual_seed(0)
    for name, function in checks.items():
        if name.startswith("test_"):
            function()
