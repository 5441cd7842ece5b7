"""The documents: what README, CONTRIBUTING and docs/ point at and tell people to type is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(.+)$", re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
COMMENT = re.compile(r"(^|\s)#\s.*")
MAKE = re.compile(r"(?:^|[\s;&(])make((?: +[a-z][\w-]*)+)(?![\w=])")
MODULE = re.compile(r"python -m ((?:datamodules|lightning_modules|experiments|tests)[\w.]*)")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def code(text: str) -> list[str]:
    """What a document sets as code: its blocks line by line without their comments, and the words in backticks."""
    blocks = [line for block in FENCED.findall(text) for line in block.splitlines()] + INDENTED.findall(text)
    prose = INDENTED.sub("", FENCED.sub("", text))
    return [COMMENT.sub("", line) for line in blocks] + [" ".join(span.split()) for span in SPAN.findall(prose)]


def places(text: str) -> list[str]:
    """The links and pictures of a document that lie in the repository."""
    return [place for place in LINK.findall(text) if not re.match(r"[a-z]+:", place)]


def headings(text: str) -> set[str]:
    """What `#...` may name: the headings as they stand in addresses."""
    found = re.findall(r"^#+ +(.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def make_targets(text: str) -> set[str]:
    return {target for line in code(text) for words in MAKE.findall(line) for target in words.split()}


def commands(text: str) -> set[str]:
    return {name for line in code(text) for name in MODULE.findall(line)}


@every_document
def test_links_and_pictures_are_there(document):
    for place in places(document.read_text()):
        path, _, heading = place.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name} points at {place}"
        assert not heading or heading in headings(target.read_text()), f"{document.name} points at {place}"


@every_document
def test_make_knows_the_targets(document):
    rules = re.findall(r"^([\w%-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = [re.compile(re.escape(rule).replace("%", ".+")) for rule in rules]
    unknown = {target for target in make_targets(document.read_text()) if not any(k.fullmatch(target) for k in known)}
    assert not unknown


@every_document
def test_commands_are_modules(document):
    for name in commands(document.read_text()):
        path = ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"python -m {name}"


def test_the_readme_is_a_first_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


def test_what_is_found_in_a_document():
    text = (
        "# A b-c, `d`\n[x](y.md#z) ![p](q.png) [far](https://a.b/c) `make\nlint test` make sure\n\n"
        "    make fit RECIPE=dextr  # make nothing\n    (python -m experiments.fit --config dextr)\n\n"
        "```bash\nmake reproduce-table-4 | tail\n```\n"
    )
    assert places(text) == ["y.md#z", "q.png"]
    assert headings(text) == {"a-b-c-d"}
    assert make_targets(text) == {"lint", "test", "fit", "reproduce-table-4"}
    assert commands(text) == {"experiments.fit"}
