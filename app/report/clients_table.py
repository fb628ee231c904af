"""Every client in one row: its data, its part in the model, its figures, its faults."""

from collections.abc import Callable, Mapping
from typing import Any

from app.report import wording
from app.report.reading import RunRecord
from app.report.tables import NumberTable, Row, shortened
from app.report.wording import MISSING, number
from strategies.core.wire import client_sort_key

_MOST_CLIENTS = 200


def clients_table(record: RunRecord) -> NumberTable | None:
    """Return a row for each client, with the columns of which anything is known; None without clients."""
    described: Mapping[str, Any] = record.summary.get("clients") or {}
    logged = record.contributions.clients if record.contributions else ()
    clients = sorted({*described, *logged, *record.faults}, key=client_sort_key)
    if not clients:
        return None
    columns = {name: [value(client) for client in clients] for name, value in _columns(record).items()}
    known = {name: cells for name, cells in columns.items() if set(cells) - {MISSING, ""}}
    rows = [
        Row(client, tuple(cells[place] for cells in known.values())) for place, client in enumerate(clients)
    ]
    shown, more = shortened(rows, _MOST_CLIENTS, "clients")
    return NumberTable(f"Every client{more}.", "client", tuple(known), shown, texts=(_MARKS,))


_MARKS = "remark"


def _columns(record: RunRecord) -> dict[str, Callable[[str], str]]:
    """Return by heading what gives a client's cell; the one with words comes last."""
    described: Mapping[str, Any] = record.summary.get("clients") or {}
    evaluated = (record.summary.get("evaluations") or {}).get("clients") or {}
    measured: Mapping[str, Any] = evaluated.get("clients") or {}
    headline = str(evaluated.get("headline", ""))
    spent: Mapping[str, Any] = (record.summary.get("privacy") or {}).get("clients") or {}
    faults = record.faults
    return {
        "examples": lambda i: _count(described.get(i, {}).get("num-examples")),
        "rounds": lambda i: _count(_rounds(record, i)),
        "share of all updates, %": lambda i: _share(record, i),
        f"{wording.figure_name(headline)} on its own data": lambda i: wording.figure(
            headline, measured.get(i, {}).get(headline)
        ),
        "spent ε": lambda i: number((spent.get(i) or {}).get("epsilon"), 3),
        "faults": lambda i: _count(len(faults.get(i, ())) or None),
        _MARKS: record.marks,
    }


def _count(value: Any) -> str:
    return MISSING if value is None else f"{int(value):,}"


def _rounds(record: RunRecord, client_id: str) -> int | None:
    """Return in how many rounds a client's update counted."""
    if record.contributions is None:
        return None
    return record.contributions.num_rounds(client_id)


def _share(record: RunRecord, client_id: str) -> str:
    """Return a client's share of the length of all updates."""
    if record.contributions is None:
        return MISSING
    whole = record.contributions.whole
    return number(100.0 * record.contributions.total(client_id) / whole) if whole else MISSING
