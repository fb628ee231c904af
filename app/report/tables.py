"""Tables of the page: rows of text, each cell as people read it."""

from dataclasses import dataclass, replace

from app.report.wording import MISSING


@dataclass(frozen=True)
class Row:
    """A row of a table of numbers; `kind` is its style."""

    label: str
    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class NumberTable:
    """A table of numbers on the page: its caption, the heading of the rows' names, and the columns.

    The columns named in `texts` hold words, and stand left.
    """

    caption: str
    first: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    texts: tuple[str, ...] = ()

    def is_text(self, place: int) -> bool:
        """Whether the column in a place, from 0, holds words."""
        return self.columns[place] in self.texts


def measured_columns(table: NumberTable) -> NumberTable:
    """Return a table without the columns in which no row has a value.

    >>> measured_columns(NumberTable("", "run", ("ε", "loss"), (Row("a", (MISSING, "0.1")),))).columns
    ('loss',)
    """
    places = [i for i in range(len(table.columns)) if any(row.cells[i] != MISSING for row in table.rows)]
    return replace(
        table,
        columns=tuple(table.columns[i] for i in places),
        rows=tuple(replace(row, cells=tuple(row.cells[i] for i in places)) for row in table.rows),
    )


def shortened(rows: list[Row], most: int, what: str) -> tuple[tuple[Row, ...], str]:
    """Return the first rows, at most `most`, and the words that say how many there are, if more.

    >>> shortened([Row("a", ()), Row("b", ())], 1, "classes")[1]
    ', the first 1 of 2 classes'
    """
    said = f", the first {most} of {len(rows)} {what}" if len(rows) > most else ""
    return tuple(rows[:most]), said
