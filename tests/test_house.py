"""The house: imports point one way, and nothing at the top level is there without a reason."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "datamodules": {"datamodules"},
    "lightning_modules": {"datamodules", "lightning_modules"},
    "experiments": {"datamodules", "lightning_modules", "experiments"},
}


def imported_packages(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    for file in (ROOT / package).rglob("*.py"):
        others = imported_packages(file) & {*ALLOWED, "tests", "sweeps"}
        assert others <= ALLOWED[package], f"{file.relative_to(ROOT)} imports {others - ALLOWED[package]}"


def test_a_method_imports_no_data_set():
    data_sets = {
        "pascal", "pascal_ext", "sbd", "coco", "lvis", "davis", "benchmarks", "folders", "boxes", "cityscapes",
        "rooftop", "sstem", "pseudo_labels", "human_points", "readers",
    }  # fmt: skip
    for file in (ROOT / "lightning_modules").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.module.split(".") if isinstance(node, ast.ImportFrom) and node.module else []
            assert parts[:1] != ["datamodules"] or not data_sets & set(parts), file


def test_modules_fit_a_screen_or_three():
    long = {f.relative_to(ROOT): n for p in ALLOWED for f in (ROOT / p).rglob("*.py")
            if (n := len(f.read_text().splitlines())) > 350}  # fmt: skip
    assert not long


def test_the_top_level_holds_what_the_design_names():
    known = {
        "experiments", "lightning_modules", "datamodules", "sweeps", "tests", "docs", "setup.cfg", "Makefile",
        "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "pyproject.toml",
    }  # fmt: skip
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    top = {name.partition("/")[0] for name in listed if name}
    assert {name for name in top if not name.startswith(".")} <= known
