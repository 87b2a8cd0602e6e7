"""How commands print for people: lists that fit a terminal of any width, and whole lines where there is no terminal."""

import os
import sys
from collections.abc import Collection, Iterator

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

__all__ = ["Listing", "console"]

#: Columns of an output that is no terminal: a pipe or a file breaks no lines.
_UNLIMITED = 10_000
#: What a cell without a value shows.
_NOTHING = ("", "-")


def console() -> Console:
    """Returns the console of standard output. What goes into a pipe or a file is not wrapped, unless COLUMNS is set."""
    unlimited = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, markup=False, width=_UNLIMITED if unlimited else None)


class Listing:
    """Rows under headings: a table where each word has room, else each row as lines, one below the other.

    Nothing is cut off at any width. Texts are taken as they are, without markup.

    Args:
        columns: The headings. The first column names a row.
        title: The title above; empty for none.
        numbers: Headings of columns of numbers, which are aligned at the right.
    """

    def __init__(self, *columns: str, title: str = "", numbers: Collection[str] = ()) -> None:
        self._columns, self._title, self._numbers = columns, title, numbers
        self._rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row with one cell per column."""
        self._rows.append(tuple(Text(cell) if isinstance(cell, str) else cell for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        table = self._table()
        least = Measurement.get(console, options.update_width(_UNLIMITED), table).minimum
        yield table if least <= options.max_width else Group(*self._blocks())

    def _table(self) -> Table:
        columns = [
            Column(name, overflow="fold", justify="right" if name in self._numbers else "left")
            for name in self._columns
        ]
        table = Table(*columns, title=self._title or None, title_justify="left", box=box.SIMPLE)
        for row in self._rows:
            table.add_row(*row)
        return table

    def _blocks(self) -> Iterator[RenderableType]:
        if self._title:
            yield Text(self._title, style="italic")
        for name, *cells in self._rows:
            yield Text(name.plain, style="bold", overflow="fold")
            for heading, cell in zip(self._columns[1:], cells, strict=True):
                if cell.plain not in _NOTHING:
                    yield from _labelled(heading, cell)


def _labelled(heading: str, cell: Text) -> Iterator[RenderableType]:
    """Yields a cell of one line beside its heading, of several below it."""
    label = Text(f"{heading}: " if heading else "", style="dim")
    if "\n" not in cell.plain:
        yield Padding(Text.assemble(label, cell, overflow="fold"), (0, 0, 0, 2))
        return
    yield Padding(label, (0, 0, 0, 2))
    yield Padding(Text.assemble(cell, overflow="fold"), (0, 0, 0, 4))
