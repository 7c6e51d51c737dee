"""The page of a report: one file beside its figure, readable without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
.source { color: GrayText; margin-top: 0.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.8rem; text-align: right; }
th, td { border-bottom: 1px solid color-mix(in srgb, CanvasText 15%, Canvas); }
th { border-bottom-width: 2px; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
figure { margin: 1.5rem 0; background: white; padding: 0.5rem; }
img { max-width: 100%; }
pre { overflow-x: auto; padding: 0.6rem; background: color-mix(in srgb, CanvasText 7%, Canvas); }
details { margin: 1rem 0; }
"""


def page(content: dict[str, Any], rows: Sequence[Sequence[str]], has_figure: bool) -> str:
    """The HTML of a report.

    Args:
        content: what `results.json` has.
        rows: the table, its header first.
        has_figure: whether `figure.png` is beside it.
    """
    runs = content["runs"]
    note = f"Budget <b>{escape(content['budget'])}</b>" + (f": {escape(content['note'])}." if content["note"] else ".")
    if runs["finished"] < runs["planned"]:
        note += f" <b>{runs['finished']} of {runs['planned']} runs are finished.</b>"
    if content["left_out"]:
        note += f" Without {escape(content['metric'])}, and so left out: {escape(', '.join(content['left_out']))}."
    statistic = f"Values are <code>{escape(content['metric'])}</code>, {escape(content['statistic'])}."
    figure = ""
    if has_figure:
        alt = escape(content["title"], quote=True)
        links = ", ".join(f'<a href="figure.{kind}">{kind.upper()}</a>' for kind in ("png", "svg", "pdf"))
        figure = f'<figure><img src="figure.png" alt="{alt}"></figure><p>Figure: {links}</p>'
    files = ", ".join(f'<a href="{name}">{name}</a>' for name in ("table.md", "table.csv", "table.tex", "results.json"))
    commits = sorted({commit for cell in content["cells"] for commit in cell["commits"]})
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(content["artefact"])}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(content["title"])}</h1>
<p class="source">{escape(content["artefact"])}: {escape(content["source"])}</p>
<p>{note} {statistic}</p>
<div class="scroll">{_table(rows)}</div>
{figure}
<p>Tables and numbers: {files}</p>
<details><summary>Every seed</summary><div class="scroll">{_table(_seeds(content["cells"]))}</div></details>
<details open><summary>How it was made</summary>
<pre>{escape(content["command"])}</pre>
<p>Commits: {escape(", ".join(commits))}. {escape(versions)}. Processor: {escape(content["processor"]["name"])},
{content["processor"]["cores"]} cores.</p>
<p>The first run of each cell:</p>
<pre>{escape(chr(10).join(cell["command"] for cell in content["cells"]))}</pre>
</details>
</body>
</html>
"""


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _seeds(cells: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = [["task", "variant", "seed", "value"]]
    for cell in cells:
        for seed, value in zip(cell["seeds"], cell["values"], strict=True):
            rows.append([cell["task_label"], cell["label"], str(seed), f"{value:,.3f}"])
    return rows
