"""The figures of a run's model, by which its task is judged: the headline, and tables by class and client."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.report import wording
from app.report.figures import confusion_map
from app.report.headline import PLACES
from app.report.svg import Picture
from app.report.tables import NumberTable, Row, shortened
from app.report.wording import MISSING, count
from strategies.core.wire import client_sort_key
from strategies.figures import CONFUSION, MOST_CONFUSED

_ON = {"server": "on the server's test data", "clients": "on what the clients hold out, added up exactly"}
_MOST_ROWS = 100


@dataclass(frozen=True)
class EvaluationView:
    """What was measured in one place; `picture` is its confusion matrix, None: not counted."""

    title: str
    tables: tuple[NumberTable, ...]
    picture: Picture | None
    remark: str


def views(summary: Mapping[str, Any], class_names: Sequence[str]) -> tuple[EvaluationView, ...]:
    """Return what to show of each place where the model was measured."""
    evaluations = summary.get("evaluations") or {}
    return tuple(
        EvaluationView(
            f"{_when(summary)}, {_ON[place]} ({count(int(found['examples']), 'example')})",
            tuple(_tables(found, class_names)),
            _confusion(found, class_names, place),
            _remark(found),
        )
        for place in PLACES
        if (found := evaluations.get(place))
    )


def _when(summary: Mapping[str, Any]) -> str:
    judged = summary.get("judged")
    return f"After round {judged['round']}, which is kept" if judged else "After the last round"


def _confusion(found: Mapping[str, Any], class_names: Sequence[str], place: str) -> Picture | None:
    """Return the confusion matrix, if the figures have one; of so many classes that it can be read."""
    counts = (found.get("tables") or {}).get(CONFUSION) or []
    if not _is_square(counts) or len(counts) > MOST_CONFUSED:
        return None
    return confusion_map(counts, class_names, f"{CONFUSION}-{place}")


def _is_square(counts: Any) -> bool:
    rows = counts if isinstance(counts, list) else []
    return len(rows) > 1 and all(
        _is_vector(row) and len(row) == len(rows) and None not in row for row in rows
    )


def _remark(found: Mapping[str, Any]) -> str:
    """Return how to have a confusion matrix, where the task has one and it was not counted."""
    missing = "accuracy" in found["figures"] and CONFUSION not in (found.get("tables") or {})
    return (
        f"No confusion matrix was counted; a run with task.metrics = {CONFUSION} has one." if missing else ""
    )


def _tables(found: Mapping[str, Any], class_names: Sequence[str]) -> Iterator[NumberTable]:
    headline = str(found["headline"])
    better = "the higher, the better" if found["higher-is-better"] else "the lower, the better"
    figures = {headline: found["figures"].get(headline), **found["figures"]}
    rows = tuple(
        Row(wording.figure_name(name), (wording.figure(name, value),), "after" if name == headline else "")
        for name, value in figures.items()
    )
    caption = f"The model is judged by {wording.figure_name(headline)}: {better}."
    yield NumberTable(caption, "figure", ("value",), rows)
    if by_class := _by_class(found, class_names):
        yield by_class
    if clients := found.get("clients"):
        yield _by_client(clients, headline)


def _by_class(found: Mapping[str, Any], class_names: Sequence[str]) -> NumberTable | None:
    score = "accuracy" if "accuracy" in found["figures"] else "score"
    groups = {int(row["group"]): row for row in found.get("groups") or ()}
    vectors = {name: values for name, values in (found.get("tables") or {}).items() if _is_vector(values)}
    indices = sorted({*groups, *(i for values in vectors.values() for i in range(len(values)))})
    if not indices:
        return None
    columns = (
        *(("examples", wording.figure_name(score)) if groups else ()),
        *map(wording.figure_name, vectors),
    )
    rows = []
    for i in indices:
        row = groups.get(i)
        own = (f"{row['examples']:,}", wording.figure(score, row["score"])) if row else (MISSING, MISSING)
        others = (
            wording.figure(name, values[i] if i < len(values) else None) for name, values in vectors.items()
        )
        label = class_names[i] if i < len(class_names) else str(i)
        rows.append(Row(label, (*(own if groups else ()), *others)))
    shown, more = shortened(rows, _MOST_ROWS, "classes")
    return NumberTable(f"By class{more}.", "class", columns, shown)


def _is_vector(values: Any) -> bool:
    return isinstance(values, list) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )


def _by_client(clients: Mapping[str, Mapping[str, float | None]], headline: str) -> NumberTable:
    ids = sorted(clients, key=client_sort_key)
    rows = [
        Row(
            i,
            (f"{int(clients[i].get('examples') or 0):,}", wording.figure(headline, clients[i].get(headline))),
        )
        for i in ids
    ]
    shown, more = shortened(rows, _MOST_ROWS, "clients")
    caption = f"By client, each on what it holds out itself{more}."
    return NumberTable(caption, "client", ("examples", wording.figure_name(headline)), shown)
