"""Tables of numbers for the console: in a narrow window names give way, and numbers stay whole."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from core.system.console import printable

# names are not cut to fewer characters than this, as long as there is another way
SHORTEST_NAME = 16
# what a column takes beside its text, and what a table takes beside its columns
GAP, EDGE = 2, 1


@dataclass
class NumberTable:
    """A table whose first column holds names, and each other column numbers.

    If the window is too narrow, headings are broken between words, then names lose their middle. If
    that does not do, the table is printed in blocks below each other, each with the names and some
    of the columns. A number is never cut, nor broken.

    headings: one for each column.
    title: a line above the table.
    left: headings of the columns of words, which are aligned to the left.
    rows: cells as text, one for each column.
    sections: numbers of the rows after which there is an empty line.
    """

    headings: Sequence[str]
    title: str | None = None
    left: Collection[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    sections: set[int] = field(default_factory=set)

    def add_row(self, name: str, *cells: str) -> None:
        """Add a row: a name, and a cell for each other column."""
        self.rows.append([printable(text) for text in (name, *cells)])

    def add_section(self) -> None:
        """Leave an empty line after the rows so far."""
        self.sections.add(len(self.rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for columns in self._blocks(options.max_width):
            yield self._block(columns, options.max_width)

    def _blocks(self, window: int) -> Iterator[list[int]]:
        """Yield the columns, without that of the names, that stand beside each other."""
        room = window - min(self._width(0), SHORTEST_NAME) - GAP - EDGE
        block: list[int] = []
        for column in range(1, len(self.headings)):
            if block and sum(self._width(c) + GAP for c in (*block, column)) > room:
                yield block
                block = []
            block.append(column)
        yield block

    def _width(self, column: int) -> int:
        """Return the width of a column, if its heading is broken between words."""
        words = self.headings[column].split()
        cells = [row[column] for row in self.rows]
        return max(map(cell_len, (*words, *cells)), default=0)

    def _block(self, columns: Sequence[int], window: int) -> Table:
        """Return a table of the names and some of the other columns."""
        table = Table(
            title=Text(self.title) if self.title and 1 in columns else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        widths = self._widths(columns, window)
        for column, width in zip((0, *columns), widths, strict=True):
            heading = self.headings[column]
            side: Literal["left", "right"] = "right"
            if column == 0 or heading in self.left:
                side = "left"
            table.add_column(Text(heading), justify=side, width=width, vertical="bottom")
        for number, row in enumerate(self.rows):
            texts = (shorten(row[0], widths[0]), *(row[column] for column in columns))
            cells = (Text(text, no_wrap=True) for text in texts)
            table.add_row(*cells, end_section=number in self.sections)
        return table

    def _widths(self, columns: Sequence[int], window: int) -> list[int]:
        """Return the widths of the names and of some columns: headings in one line if they fit."""
        natural = [max(self._width(c), cell_len(self.headings[c])) for c in (0, *columns)]
        if sum(natural) + GAP * len(natural) + EDGE <= window:
            return natural
        numbers = [self._width(column) for column in columns]
        rest = window - sum(numbers) - GAP * len(natural) - EDGE
        return [max(1, min(self._width(0), rest)), *numbers]


def shorten(name: str, width: int) -> str:
    """Return a name that takes at most `width` places: one that is longer loses its middle.

    Names of tasks and episodes often have a beginning, or an end, in common.
    """
    if cell_len(name) <= width:
        return name
    beginning, end = width // 2, (width - 1) // 2
    tail = set_cell_size(name[::-1], end)[::-1]
    return f"{set_cell_size(name, beginning)}…{tail}"
