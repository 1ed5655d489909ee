"""Tables of styled cells for a terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text


class Styled(NamedTuple):
    """The text of a cell, and how it stands out."""

    text: str
    bold: bool = False
    underlined: bool = False


Rows = Iterable[Sequence[Styled]]


def rich_grid(title: str, header: Sequence[str], rows: Rows) -> Table:
    """For a terminal; the first column is on the left, numbers are on the right."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*(Text(cell.text, style=_style(cell)) for cell in row))
    return table


def markdown_grid(header: Sequence[str], rows: Rows) -> list[str]:
    """The lines of a Markdown table, which has no underline, so `<u>` is used."""
    lines = [_piped(header), _piped("---" for _ in header)]
    return [*lines, *(_piped(_markdown(cell) for cell in row) for row in rows)]


def latex_grid(comment: str, header: Sequence[str], rows: Rows) -> str:
    """A booktabs tabular under a comment."""
    lines = [f"% {comment}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    lines += [_joined(_escaped(name) for name in header), r"\midrule"]
    lines += [_joined(map(_latex, row)) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def marked(texts: Iterable[str], style: Callable[[int], tuple[bool, bool]] = lambda _: (False, False)) -> list[Styled]:
    """Texts as cells; style: place → (bold, underlined)."""
    return [Styled(text, *style(place)) for place, text in enumerate(texts)]


def _style(cell: Styled) -> str:
    return " ".join(["bold"] * cell.bold + ["underline"] * cell.underlined)


def _markdown(cell: Styled) -> str:
    text = f"<u>{cell.text}</u>" if cell.underlined else cell.text
    return f"**{text}**" if cell.bold else text


def _latex(cell: Styled) -> str:
    text = _escaped(cell.text).replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")
    text = rf"\underline{{{text}}}" if cell.underlined else text
    return rf"\textbf{{{text}}}" if cell.bold else text


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)


def _joined(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
