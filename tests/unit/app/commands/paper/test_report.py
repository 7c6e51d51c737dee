"""Statistics, tables, figure and page of a report, from run folders whose numbers are known."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lit_mbrl.app.commands.paper.plan import PaperRun, plan
from lit_mbrl.app.commands.paper.report import HEADER, latex, markdown, write_report
from lit_mbrl.app.commands.paper.results import collect, left_out
from lit_mbrl.papers.artefact import Artefact, Budget, Part
from lit_mbrl.reports.curves import final_values
from lit_mbrl.reports.runs import read_run
from lit_mbrl.reports.statistics import improvement
from tests.unit.app.commands.test_plot import evaluations, make_run

BUDGET = Budget(
    {"swing": Part(label="Swing-up")},
    {"base": Part("sac", label="SAC"), "ours": Part("sac_svg", label="SVG_2 & <more>")},
    (10, 11, 12),
    note="small networks",
    reported=True,
)
ARTEFACT = Artefact(
    "toy/table",
    "A table",
    "nowhere, table 1",
    {"laptop": BUDGET},
    baseline="base",
    reported={"ours": {"swing": (5.0, 1.5)}, "others": {"swing": (-7.0, None)}},
)
RETURNS = {("base", 10): 1.0, ("base", 11): 2.0, ("base", 12): 6.0, ("ours", 10): 4.0, ("ours", 11): 8.0}


@pytest.fixture
def runs(tmp_path: Path) -> list[PaperRun]:
    """Six runs, of which five are finished: the last one stopped at half its steps."""
    planned = plan(ARTEFACT, BUDGET, tmp_path, [])
    for run in planned:
        value = RETURNS.get((run.cell.variant, run.seed))
        rows = evaluations(0.0, value) if value is not None else evaluations(3.0)
        make_run(run.folder, rows, run.seed, data={"total_frames": 200})
        run.record.write_text(json.dumps({"fingerprint": run.fingerprint, "commits": [f"c{run.seed}"]}))
    return planned


def test_statistics_of_the_finished_runs(runs: list[PaperRun]) -> None:
    base, ours = collect(ARTEFACT, BUDGET, runs)
    assert (base["variant"], base["seeds"], base["values"]) == ("base", [10, 11, 12], [1.0, 2.0, 6.0])
    assert base["mean"] == 3.0 and base["std"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert ours["seeds"] == [10, 11] and ours["mean"] == 6.0
    # 4 is better than 1 and 2, 8 than all: five pairs of six.
    assert ours["improvement"]["probability"] == pytest.approx(5 / 6) and "improvement" not in base
    lower = collect(replace(ARTEFACT, lower_is_better=True), BUDGET, runs)[1]
    assert lower["improvement"]["probability"] == pytest.approx(1 / 6)
    assert base["reported"] is None and ours["reported"] == {"mean": 5.0, "std": 1.5}
    assert ours["env_steps"] == 200 and ours["seconds"] == 100.0 and ours["policy_updates"] is None
    assert base["commits"] == ["c10", "c11", "c12"]


def test_probability_of_improvement() -> None:
    assert improvement(np.array([1.0, 2.0]), np.array([1.0]))["probability"] == 0.75  # a tie counts half
    found = improvement(np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0, 2.0]))
    assert found == {"probability": 1.0, "interval_95": [1.0, 1.0]}
    low, high = improvement(np.arange(10.0), np.arange(10.0) + 0.5)["interval_95"]
    assert 0.1 < low < 0.45 < high < 0.8
    assert improvement(np.array([1.0]), np.array([0.0, 2.0]))["interval_95"] is None


class Tags(HTMLParser):
    """Text of a page and its attributes, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_files_of_a_report(runs: list[PaperRun], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    rows, written = write_report(ARTEFACT, BUDGET, "laptop", runs, folder, "python -m lit_mbrl paper toy/table")
    assert written[0].name == "index.html" and all(path.stat().st_size for path in written)
    assert {path.suffix for path in written} == {".html", ".json", ".md", ".csv", ".tex", ".png", ".svg", ".pdf"}
    assert [row[1] for row in rows[1:]] == ["SAC", "SVG_2 & <more>", "others"]
    assert rows[0][rows[0].index("paper") - 1] == "better than SAC"
    assert [row[rows[0].index("paper")] for row in rows[1:]] == ["", "5.0 ± 1.5", "-7.0"]

    content = json.loads((folder / "results.json").read_text())
    assert content["runs"] == {"planned": 6, "finished": 5} and content["processor"]["name"]
    seeds = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [(row["variant"], int(row["seed"]), float(row["value"])) for row in seeds] == [
        (variant, seed, value) for (variant, seed), value in RETURNS.items()
    ]
    page = Tags((folder / "index.html").read_text())
    assert page.open == [] and all((folder / link).is_file() for link in page.links)  # nothing from a network
    text = " ".join(page.texts)
    assert "SVG_2 & <more>" in text and "5 of 6 runs are finished" in text and "small networks" in text
    assert "paper toy/table" in text and "c12" in text


def test_an_unfinished_artefact_has_no_report(runs: list[PaperRun], tmp_path: Path) -> None:
    assert write_report(ARTEFACT, BUDGET, "laptop", runs[-1:], tmp_path / "report", "") == ([], [])
    assert not (tmp_path / "report").exists()


def test_runs_without_the_metric_are_left_out(runs: list[PaperRun], tmp_path: Path) -> None:
    artefact = replace(ARTEFACT, metric="time/policy_updates")
    assert collect(artefact, BUDGET, runs) == []
    assert left_out(artefact, runs) == [run.name for run in runs[:5]] and left_out(ARTEFACT, runs) == []


def test_tables_as_markdown_and_latex() -> None:
    rows = [["a", "b", "c"], ["x_1", "95 %", "1 ± 2"]]
    assert markdown(rows).splitlines() == ["| a | b | c |", "| --- | --- | --- |", "| x_1 | 95 % | 1 ± 2 |"]
    text = latex(rows)
    assert r"x\_1 & 95 \% & 1 $\pm$ 2 \\" in text and text.startswith(r"\begin{tabular}{llr}")
    assert not re.search(r"(?<!\\)[%_]", text)
    assert len(set(HEADER)) == len(HEADER)


def test_values_of_runs_that_have_no_steps_in_common(tmp_path: Path) -> None:
    planned = plan(ARTEFACT, BUDGET, tmp_path, [])[:2]
    for run, rows in zip(planned, ("100,4,50,\n", "200,6,100,\n"), strict=True):
        header = "step,eval/return,time/seconds,loss/critic\n50,,25,1\n"
        make_run(run.folder, header + rows, run.seed, data={"total_frames": 100})
    values, reached = final_values([read_run(run.folder) for run in planned], "eval/return")
    assert values.tolist() == [4.0, 6.0] and reached == 100
