"""The house: imports point one way, between floors and between rooms, and nothing is there without a reason."""

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("datamodules", "lightning_modules", "experiments")  # lowest first
# The rooms of experiments/, lowest first: each may import from those before it. Commands stand on top of them all.
ROOMS = (
    "ends",
    "console",
    "options",
    "pictures",
    "curves",
    "composition",
    "runs",
    "training",
    "evaluation",
    "labelling",
    "interactive",
    "reproduction",
    "launching",
    "reports",
)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def modules() -> dict[str, Path]:
    """Every module of the three floors, packages by their own name."""
    files = [file for floor in FLOORS for file in (ROOT / floor).rglob("*.py")]
    dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(dotted, files)}


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports, of the house or not; imports inside functions count, too."""
    return {name: set(imported(file)) for name, file in modules().items()}


def imported(file: Path):
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield member if member in modules() else node.module


def commands() -> set[str]:
    """Modules of experiments/ that are run by name."""
    top = {name for name in modules() if name.count(".") == 1 and name.startswith("experiments.")}
    return {name for name in top if "__main__" in modules()[name].read_text()}


def room_of(name: str) -> int | None:
    """Where a module of experiments/ stands in ROOMS, commands above all; None for the other floors."""
    floor, _, rest = name.partition(".")
    if floor != "experiments" or not rest:
        return None
    return len(ROOMS) if name in commands() else ROOMS.index(rest.partition(".")[0])


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_between_floors_point_one_way(floor):
    above = {*FLOORS[FLOORS.index(floor) + 1 :], "tests", "sweeps"}
    for name, others in imports().items():
        if name.partition(".")[0] == floor:
            assert not {other.partition(".")[0] for other in others} & above, name


@pytest.mark.parametrize("name", sorted(name for name in modules() if room_of(name) is not None))
def test_imports_between_rooms_point_one_way(name):
    wrong = [other for other in imports()[name] if room_of(other) is not None and room_of(other) > room_of(name)]
    assert not wrong, f"{name} imports from a higher room: {wrong}"
    assert not (commands() - {name}) & imports()[name], f"{name} imports a command"


def test_no_module_imports_itself_in_a_circle():
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(name: str) -> None:
        state[name] = 1
        trail.append(name)
        for other in sorted(imports()[name] & modules().keys() - {name}):
            assert state.get(other) != 1, " -> ".join([*trail[trail.index(other) :], other])
            if other not in state:
                visit(other)
        state[name] = 2
        trail.pop()

    for name in modules():
        if name not in state:
            visit(name)


def test_a_method_imports_no_data_set_and_no_reader():
    below = ("datamodules.sets", "datamodules.readers", "datamodules.pseudo_labels", "datamodules.human_points")
    for name, others in imports().items():
        if name.startswith("lightning_modules"):
            assert not [other for other in others if other.startswith(below)], name


def test_one_name_stands_for_one_thing():
    """A recipe names a class of the two lower floors without its module; a reader meets functions in the same way."""
    homes: dict[str, list[str]] = {}
    for module, file in modules().items():
        if module.startswith(("datamodules", "lightning_modules")):
            for node in parsed(file).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(module)
    del homes["main"]  # of commands
    assert not {name: found for name, found in homes.items() if len(found) > 1}


def test_modules_fit_a_screen_or_three():
    most = {"experiments": 300}
    lines = {name: len(file.read_text().splitlines()) for name, file in modules().items()}
    assert not {name: n for name, n in lines.items() if n > most.get(name.partition(".")[0], 350)}


def size_of(kind: ast.ClassDef) -> int:
    """How many arguments a class is made of: those of its own constructor, or its fields."""
    for part in kind.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return len(part.args.args) - 1 + len(part.args.kwonlyargs)
    return sum(isinstance(part, ast.AnnAssign) for part in kind.body)


def test_what_is_made_of_more_than_six_is_told_by_keyword():
    """All but the first four, whose order everybody knows: a run's kind, config, parents and lists."""
    files = [*modules().values(), *(ROOT / "tests").rglob("*.py")]
    nodes = [(file, node) for file in files for node in ast.walk(parsed(file))]
    large = {node.name for _, node in nodes if isinstance(node, ast.ClassDef) and size_of(node) > 6}
    assert {"Node", "DEXTR", "Figure"} <= large
    for file, node in nodes:
        if not isinstance(node, ast.Call):
            continue
        if len(node.args) > 4 or any(isinstance(each, ast.Starred) for each in node.args):
            assert ast.unparse(node.func).rpartition(".")[2] not in large, f"{file}, line {node.lineno}"


def test_every_folder_of_a_floor_says_what_it_is_for_or_is_named_in_the_design():
    unknown = {name.split(".")[1] for name in modules() if name.startswith("experiments.") and name.count(".") > 1}
    assert unknown <= set(ROOMS)


def test_the_top_level_holds_what_the_design_names():
    known = {
        "experiments",
        "lightning_modules",
        "datamodules",
        "sweeps",
        "tests",
        "docs",
        "setup.cfg",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "constraints.txt",
        "pyproject.toml",
    }
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    top = {name.partition("/")[0] for name in listed if name}
    assert {name for name in top if not name.startswith(".")} <= known
