"""The tables of a written report, Markdown or HTML, as lines of text."""

from __future__ import annotations

from html.parser import HTMLParser


def squeezed(cells: list[str] | tuple[str, ...]) -> list[str]:
    return [" ".join(cell.split()) for cell in cells]


def markdown_grids(text: str) -> list[list[list[str]]]:
    found: list[list[list[str]]] = []
    previous = ""
    for line in text.splitlines():
        if line.startswith("|"):
            cells = squeezed(line.replace("\\|", "\0").strip("|").split("|"))
            if not previous.startswith("|"):
                found.append([])
            if not all(set(cell) <= set("-:") and cell for cell in cells):
                found[-1].append([cell.replace("\0", "|") for cell in cells])
        previous = line
    return found


class _Tables(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self.found[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1][-1][-1] += data


def html_grids(text: str) -> list[list[list[str]]]:
    parser = _Tables()
    parser.feed(text)
    return [[squeezed(line) for line in table] for table in parser.found]
