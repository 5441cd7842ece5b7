"""What a report says, as grids of text. Markdown, HTML, the console and the check of a report all read these."""

from __future__ import annotations

from dataclasses import replace

from experiments.console import DASH, Grid, duration
from experiments.evaluation.protocols import protocol
from experiments.reports.measured import shown_by_protocol
from experiments.reproduction.cells import OFF, QUOTED, REPRODUCED, Cell, TableResult, main_run
from experiments.reproduction.tables import Row, Value

COLUMNS_PER_BLOCK = 6


def grids(result: TableResult) -> list[Grid]:
    """The grids of a report in their order, without the empty ones."""
    shown = [grid for how, measured in shown_by_protocol(result) for grid in how.grids(measured)]
    measured = [results_grid(result), *_published(result), *shown]
    behind = [_choices(result), _sources(result), _runs(result)]
    return [_without_empty_end(grid) for grid in [*measured, *behind] if grid.lines]


def _without_empty_end(grid: Grid) -> Grid:
    """The grid without its last column if no line has anything to remark there."""
    if any(line[-1] for line in grid.lines):
        return grid
    return replace(grid, header=grid.header[:-1], lines=tuple(line[:-1] for line in grid.lines))


def banner(result: TableResult) -> str:
    """The first thing a reader must know."""
    own = [cell for cell in result.cells if cell.state != QUOTED]
    if result.profile == "paper":
        judged = [cell for cell in own if cell.state in (REPRODUCED, OFF)]
        done = sum(cell.state == REPRODUCED for cell in judged)
        return (
            f"PROFILE paper: {done} of {len(judged)} judged values reproduced, that is within 0.5 points (0.1 clicks) "
            "of the published value or within two standard deviations over seeds"
        )
    usual = {"miniature": "drawn data, reduced network"}.get(result.profile, "reduced size or schedule")
    what = result.reduction or usual
    return f"PROFILE {result.profile}: {what}; differences from the published values are not a reproduction"


def results_grid(result: TableResult) -> Grid:
    """One line per cell of the suite's own rows; with a single measured column the quoted rows stand among them."""
    table = result.table
    columns = [column for column in table.columns if not column.given]
    single = len(columns) == 1
    names = {column.name for column in columns}
    lines = []
    for cell in result.cells:
        if cell.column not in names or (cell.state == QUOTED and not single):
            continue
        row = table.row(cell.row)
        shown = (published(row, cell.column), measured(cell), difference(cell), counts(cell))
        lines.append((cell.row, *([] if single else [cell.column]), *shown, cell.state, remark(cell)))
    numbers = ("Published", "Measured", "Difference", "Objects")
    header = ("Row", *([] if single else ["Column"]), *numbers, "State", "Remark")
    units = sorted({column.unit for column in columns})
    text = f"{table.metric}, in {' and '.join(units)}; measured: mean ± standard deviation over seeds."
    text += _directions(result)
    if any(row.unverified for row in table.rows):
        text += " † published value from memory or second hand, not verified."
    return Grid("Published and measured", header, tuple(lines), text, numbers)


def _directions(result: TableResult) -> str:
    """Which way is better where that is not the usual one."""
    specs = [main_run(spec) for row in result.table.rows for spec in row.cells.values()]
    lower = {spec.metric for spec in specs if spec and not protocol(spec.protocol).metric(spec.metric).higher_is_better}
    return f" Lower is better: {', '.join(sorted(lower))}." if lower else ""


def remark(cell: Cell) -> str:
    """Why a cell is as it is: the two sides of a difference, the reason given, rows that cannot be told apart."""
    of = f"{{1:.2f}} of {{0:.2f}} of {cell.share_of}" if cell.share_of else "from {0:.2f} to {1:.2f}"
    said = [of.format(*cell.parts)] if cell.parts else []
    said += [cell.reason] if cell.reason else []
    if cell.row in cell.same_as:
        said.append("both models of the pair became the same run: not distinguishable in this profile")
    if others := [label for label in cell.same_as if label != cell.row]:
        said.append(f"same run as {', '.join(others)}: not distinguishable in this profile")
    return "; ".join(said)


def published(row: Row, column: str) -> str:
    """The published value as printed in a report, marked where nobody has verified it."""
    text = value_text(row.published.get(column))
    if text != DASH and column in row.published_std:
        text += f" ± {row.published_std[column]}"
    return text + (" †" if row.unverified and text != DASH else "")


def value_text(value: Value) -> str:
    return DASH if value is None else str(value)


def measured(cell: Cell) -> str:
    if cell.measured is None:
        return cell.never or DASH
    digits = _digits(cell)
    spread = "" if cell.std is None else f" ± {cell.std:.{digits}f}"
    return f"{cell.measured:.{digits}f}{spread}"


def difference(cell: Cell) -> str:
    return DASH if cell.difference is None else f"{cell.difference:+.{_digits(cell)}f}"


def counts(cell: Cell) -> str:
    """How many objects, and over how many seeds."""
    if not cell.runs:
        return DASH
    objects = "?" if cell.n_objects is None else f"{cell.n_objects:,}"
    return f"{objects} \N{MULTIPLICATION SIGN} {cell.n_seeds} seed{'s' if cell.n_seeds > 1 else ''}"


def _digits(cell: Cell) -> int:
    return 3 if cell.unit == "fraction" else 2


def _published(result: TableResult) -> list[Grid]:
    """The paper's own table with every row, in blocks of a few columns; a row appears where it has a value."""
    table = result.table
    if len([column for column in table.columns if not column.given]) == 1 and len(table.columns) == 1:
        return []
    found = []
    for start in range(0, len(table.columns), COLUMNS_PER_BLOCK):
        block = table.columns[start : start + COLUMNS_PER_BLOCK]
        rows = [r for r in table.rows if any(r.published.get(c.name) is not None for c in block)]
        lines = tuple((row.label, *(published(row, column.name) for column in block)) for row in rows)
        names = tuple(column.name for column in block)
        text = "; ".join(f"{column.name}: {column.text} ({column.unit})" for column in block)
        found.append(Grid("As published", ("Row", *names), lines, text, names))
    return found


def _choices(result: TableResult) -> Grid:
    """Each choice once, with the rows it was made for."""
    made: dict[tuple[str, str, str], list[str]] = {}
    for row, choices in result.choices.items():
        for choice in choices:
            made.setdefault((choice.name, choice.value, choice.why), []).append(row)
    every = [row for row in result.choices if row]
    names = list(dict.fromkeys(name for name, _, _ in made))
    lines = tuple(
        (name, value, "all" if rows == every or "" in rows else ", ".join(rows), why)
        for (name, value, why), rows in sorted(made.items(), key=lambda item: names.index(item[0][0]))
    )
    text = "What the paper leaves open or contradicts, and what was done."
    return Grid("Choices", ("Choice", "Value", "Rows", "Why"), lines, text)


def _sources(result: TableResult) -> Grid:
    lines = [
        (row.label, row.source + (" †" if row.unverified else ""), "; ".join([row.note, *_setting(row)]).strip("; "))
        for row in result.table.rows
    ]
    return Grid("Where the published values were found", ("Row", "Source", "Note"), tuple(lines))


def _setting(row: Row) -> list[str]:
    return [f"{key} {value}" for key, value in row.setting.items()]


def _runs(result: TableResult) -> Grid:
    """Every record behind the numbers, with its content's hash, and what it cost."""
    records = result.records
    users: dict[str, list[str]] = {}
    for cell in result.measured_cells():
        for run in records.with_parents([*cell.before_runs, *cell.runs]):
            users.setdefault(run, [])
            users[run] += [cell.row] if cell.row not in users[run] else []
    lines = []
    for run in records.with_parents(result.runs):
        record = records.read(run)
        made = (str(record.get("seed", DASH)), duration(record.get("seconds", 0)), str(record.get("git") or DASH))
        path, digest = f"{run}/record.json", records.digest(run)[:16]
        lines.append((path, str(record.get("kind", "?")), *made, digest, ", ".join(users.get(run, []))))
    header = ("Record", "Kind", "Seed", "Time", "Commit", "SHA-256", "Used by")
    text = f"Every measured number is computed from these files below {records.root}."
    return Grid("Run records", header, tuple(lines), text, ("Seed", "Time"))
