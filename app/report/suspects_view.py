"""The ranking of suspects in words and rows, on the terminal and in the report alike."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.report.tables import NumberTable, Row, shortened
from app.report.wording import MISSING, listed, number

COLUMNS = ("score", "95 %", "p", "direction", "length", "loss", "class")
"""Of the table, after the client-id."""
LEGEND = (
    "score: standard deviations by which the client's updates are out; direction: their mean cosine to the "
    "others'; length: of the median; loss: change on server data without the client; class: largest "
    "rise of an output."
)
_MOST_CLIENTS = 200
_SMALLEST_P = 1e-4


def cells(suspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a client's row, in the order of `COLUMNS`."""
    bounds = suspect["interval"]
    signs = suspect["signs"]

    def value(name: str) -> float | None:
        found: float | None = signs.get(name, {}).get("value")
        return found

    length = value("length")
    return (
        number(suspect["score"]),
        MISSING if bounds is None else " to ".join(map(number, bounds)),
        chance(suspect["p"]),
        number(value("direction"), 2),
        MISSING if length is None else f"{number(length, 2)}×",
        number(value("loss"), 3),
        number(value("class"), 2),
    )


def chance(p: float) -> str:
    """Return a p-value.

    >>> chance(0.0312), chance(3e-9), chance(1.0)
    ('0.031', '<0.0001', '1')
    """
    return f"<{_SMALLEST_P:.4f}" if p < _SMALLEST_P else f"{p:.2g}"


def command(run: str, clients: Sequence[str], method: str = "") -> str:
    """Return the command that forgets clients of a run; without a method, by the default one.

    >>> command("my run", ["3", "5"], "distill")
    "lethe forget 'my run' --client 3 --client 5 --method distill"
    """
    named = [f"--client {shlex.quote(i)}" for i in clients]
    return " ".join(["lethe forget", shlex.quote(run), *named, *([f"--method {method}"] if method else [])])


def sentences(found: Mapping[str, Any], run: str) -> Iterator[str]:
    """Yield what follows from a ranking; `run` is how commands name the run."""
    out = [suspect for suspect in found["clients"] if suspect["stands-out"]]
    rate = f"{100 * found['level']:g} %"
    if not out:
        yield (
            "Nobody stands out: the worst of clients that differ by chance alone would be as far out. At "
            f"most {rate} of such runs name one."
        )
    for suspect in out:
        yield (
            f"Client {suspect['client']} stands out (p {_equal_or_less(suspect['p'])}): "
            f"{listed(suspect['reasons'])}."
        )
    if out:
        method, default = found.get("method", ""), found.get("default", "")
        yield f"To forget: {command(run, found['standing-out'], method)}"
        if default and method != default:
            yield (
                f"{method} is named because the client may have been poisoned: {default}, the default, can "
                "leave a part of a backdoor."
            )
        yield (
            "Unlike is not bad: a client with data of another kind stands out as well. Look at them first. "
            f"Where clients differ by chance alone, at most {rate} of runs would name one."
        )
    yield from (f"{name} is not judged: {why}." for name, why in found["not-judged"].items())
    yield from (f"note: {note}" for note in found["notes"])


def _equal_or_less(p: float) -> str:
    said = chance(p)
    return f"< {said[1:]}" if said.startswith("<") else f"= {said}"


def suspects_table(found: Mapping[str, Any]) -> NumberTable:
    """Return the ranking as a table of the page, the worst first."""
    rows = [Row(suspect["client"], cells(suspect)) for suspect in found["clients"]]
    shown, more = shortened(rows, _MOST_CLIENTS, "clients")
    return NumberTable(
        f"Clients by how bad they look, the worst first{more}. {LEGEND}", "client", COLUMNS, shown
    )
