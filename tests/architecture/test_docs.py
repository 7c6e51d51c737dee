"""What the documents show exists and works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_mbrl.api.capabilities import capability_table
from lit_mbrl.app.commands.qualify.report import by_task, markdown, read_results

ROOT = Path(__file__).parents[2]
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
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Update", "ModelLoss"):
                name = node.args[0]
                if isinstance(name, ast.Constant):  # an objective's update takes its name
                    names.add(f"loss/{name.value}")
    assert {"eval/return", "loss/actor", "loss/dynamics", "policy/alpha"} <= names
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in sorted(names) if f"`{name}" not in text] == []


def test_results_are_those_of_their_files() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    table = re.search(r"<!-- qualify --table docs/results -->\n(.*?)\n<!-- end of the table -->", page, re.DOTALL)
    assert table is not None
    assert table[1] == markdown(read_results(ROOT / "docs" / "results"))


def test_choosing_has_the_library_s_own_tables() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text()
    results = read_results(ROOT / "docs" / "results")
    assert f"<!-- capabilities -->\n{capability_table()}\n<!-- end" in page
    assert f"<!-- qualify --table docs/results --by-task -->\n{by_task(results)}\n<!-- end" in page


def test_readme_s_returns_are_those_of_the_files() -> None:
    found = {each["config"]: each["paths"]["native"] for each in read_results(ROOT / "docs" / "results")}
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"\|.*\.py\).*\(conf/", line)]
    assert len(lines) > 20
    for line in lines:
        *_, configs, cell = (each.strip() for each in line.strip().removesuffix("|").split("|"))
        qualified = [found[name] for name in re.findall(r"\(conf/(\w+)\.yaml\)", configs) if name in found]
        summaries = [path["summary"] for path in qualified if path["summary"]["qualified"]]
        means = [f"{each['mean']:.0f}" if abs(each["mean"]) >= 100 else f"{each['mean']:.1f}" for each in summaries]
        seeds = dict.fromkeys(str(each["seeds"]) for each in summaries)
        each = " each" if len(means) > 1 and len(seeds) == 1 else ""
        assert cell == (f"{'; '.join(means)}, {'; '.join(seeds)} seeds{each}" if means else ""), line


RUN_EXAMPLE = """
import sys, types
import torch
name, algorithm, test = sys.argv[1:]
module = types.ModuleType(f"lit_mbrl.algorithms.{name}")
sys.modules[module.__name__] = module
exec(algorithm, module.__dict__)
checks = {}
exec(test, checks)
torch.manual_seed(0)
(function,) = [value for key, value in checks.items() if key.startswith("test_")]
function()
"""


@pytest.mark.parametrize("example", [0, 1])
def test_contributing_s_examples_work(example: int, tmp_path: Path) -> None:
    algorithm, test = blocks("CONTRIBUTING.md", "python")[2 * example : 2 * example + 2]
    (name,) = set(re.findall(r"lit_mbrl\.algorithms\.(\w+) import", test)) - {"sac"}
    # Somebody who follows the example may have a file of that name.
    name, test = f"{name}_example", test.replace(f"algorithms.{name} import", f"algorithms.{name}_example import")
    # In a process of its own: a subclass of Algorithm would stay known to the command line in this one.
    done = subprocess.run(
        [sys.executable, "-c", RUN_EXAMPLE, name, algorithm, test],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", range(4))
def test_contributing_s_examples_are_linted(example: int) -> None:
    code = blocks("CONTRIBUTING.md", "python")[example]
    # I001 takes the example's own module, which there is no file of, for another package's.
    for command in (["check", "--ignore=I001"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(ROOT / "tests" / "example.py"), "-"],
            input=code,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
