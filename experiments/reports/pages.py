"""A report as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from experiments.console import Grid, duration
from experiments.pictures import Picture
from experiments.reports.grids import banner, grids
from experiments.reproduction.cells import QUOTED, TableResult

STYLE = Path(__file__).with_name("report.css").read_text()

WIDTHS = {"threshold-sweep.png": 760, "iou-by-clicks.png": 900, "iou-by-clicks-used.png": 900}


def markdown_page(result: TableResult, pictures: Sequence[Picture]) -> str:
    """The report as Markdown; pictures by their path from the report's folder."""
    table = result.table
    parts = [f"# {table.title}", f"`{table.id}`, {', '.join(table.datasets)}", f"**{banner(result)}**"]
    first, *others = grids(result)
    parts += [markdown_grid(first)]
    if table.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in table.notes)]
    parts += [*markdown_pictures(pictures), *(markdown_grid(grid) for grid in others)]
    return "\n\n".join([*parts, "## Cost and machine", cost(result)]) + "\n"


def markdown_pictures(pictures: Sequence[Picture]) -> list[str]:
    """Pictures with their captions: those of a row side by side, then those of the whole table."""
    parts = []
    for row, shown in _by_row(pictures).items():
        images = [f"![{p.caption}]({p.path.as_posix()})" for p in shown]
        captions = [p.caption for p in shown]
        if row:
            parts += [f"{' '.join(images)}\n\n{row}: {'; '.join(captions)}"]
        else:
            parts += [f"{image}\n\n{caption}" for image, caption in zip(images, captions)]
    return parts


def html_page(result: TableResult, pictures: Sequence[Picture], folder: Path) -> str:
    """The report as one HTML file: style and pictures (from below `folder`) inside."""
    table, where = result.table, ", ".join(result.table.datasets)
    first, *others = grids(result)
    shown = html_pictures(pictures, folder)
    over = " &nbsp;·&nbsp; ".join(
        [escape(table.id), f"<code>make reproduce-table-{table.number}</code>", escape(where)]
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    body = "".join(
        [
            html_grid(first),
            f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
            f"<h2>Pictures</h2>{shown}" if shown else "",
            *(html_grid(grid, small=True) for grid in others),
        ]
    )
    title = f"{table.id}: {table.title} ({result.profile})"
    return html_document(
        title,
        heading=table.title,
        over=over,
        profile=result.profile,
        must_know=banner(result),
        body=body,
        cost=cost(result),
    )


def html_document(title: str, *, heading: str, over: str, profile: str, must_know: str, body: str, cost: str) -> str:
    """A whole page: what a reader must know first, what it cost last; `over` and `body` are HTML."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body><main>
<div class="over">{over}</div>
<h1>{escape(heading)}</h1>
<div class="banner {escape(profile)}">{escape(must_know)}</div>
{body}
<footer>{escape(cost)}</footer>
</main></body>
</html>
"""


def cost(result: TableResult) -> str:
    """What all runs of the table took, where and when; runs that rows share count once."""
    seconds = result.records.seconds(result.runs)
    hardware = sorted({_hardware(result.records.read(run).get("hardware")) for run in result.runs} - {""})
    spent = f"Runs of this table: {duration(seconds)} of computing" + (f" on {', '.join(hardware)}" if hardware else "")
    when = f"Seeds {', '.join(map(str, result.seeds))}; from {result.started} to {result.finished}"
    return ". ".join([spent, when, result.environment]).rstrip(". ") + "."


def _hardware(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    return "" if value is None else str(value)


def markdown_grid(grid: Grid) -> str:
    """A grid with its heading and its line of text."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join(" ---: " if name in grid.numbers else " --- " for name in grid.header) + "|"
    body = "\n".join([line(grid.header), rule, *(line(cells) for cells in grid.lines)])
    return f"## {grid.title}\n\n" + (f"{grid.text}\n\n" if grid.text else "") + body


def html_grid(grid: Grid, small: bool = False) -> str:
    """The same as HTML."""

    def kind(name: str) -> str:
        return name.lower().replace(" ", "-") + (" num" if name in grid.numbers else "")

    def cell(name: str, text: str) -> str:
        inside = escape(text)
        if name == "State":
            inside = f'<span class="state {text.replace(" ", "-")}">{inside}</span>'
        return f'<td class="{kind(name)}">{inside}</td>'

    def line(cells: Sequence[str]) -> str:
        return f'<tr class="{QUOTED if QUOTED in cells else ""}">{"".join(map(cell, grid.header, cells))}</tr>'

    head = "".join(f'<th class="{kind(name)}">{escape(name)}</th>' for name in grid.header)
    body = "\n".join(map(line, grid.lines))
    size = " small" if small else ""
    records = " records" if grid.title == "Run records" else ""
    return f"""<h2>{escape(grid.title)}</h2>
<p class="text">{escape(grid.text)}</p>
<div class="scroll{size}{records}"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div>
"""


def _by_row(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Pictures of a row together; those of the whole table come last."""
    rows = [*dict.fromkeys(picture.row for picture in pictures if picture.row), ""]
    found = {row: [picture for picture in pictures if picture.row == row] for row in rows}
    return {row: shown for row, shown in found.items() if shown}


def html_pictures(pictures: Sequence[Picture], folder: Path) -> str:
    """The same as HTML, with the pictures (from below `folder`) inside."""
    return "".join(_figures(row, found, folder) for row, found in _by_row(pictures).items())


def _figures(row: str, pictures: Sequence[Picture], folder: Path) -> str:
    """The pictures of one row side by side, or those of the whole table one below the other."""
    figures = "".join(_figure(picture, folder) for picture in pictures)
    return f'<h3>{escape(row)}</h3><div class="side">{figures}</div>' if row else figures


def _figure(picture: Picture, folder: Path) -> str:
    data = base64.b64encode((folder / picture.path).read_bytes()).decode()
    caption = picture.caption
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    width, height = Image.open(folder / picture.path).size
    wide = f' style="--wide: {WIDTHS[picture.path.name]}px"' if picture.path.name in WIDTHS else ""
    if picture.row and width > 2.5 * height:  # several masks side by side need the whole line
        wide = ' style="grid-column: 1 / -1"'
    return f"<figure{wide}>{image}<figcaption>{escape(caption)}</figcaption></figure>\n"
