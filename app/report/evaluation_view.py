"""The figures of a run's model, by which its task is judged: the headline, and tables by class and client."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.report import wording
from app.report.forgetting_view import Row
from app.report.headline import PLACES
from app.report.wording import MISSING, count
from strategies.core.wire import client_sort_key

_ON = {"server": "on the server's test data", "clients": "on what the clients hold out, added up exactly"}
_MOST_ROWS = 100


@dataclass(frozen=True)
class NumberTable:
    """A table of numbers on the page; `more` rows are not shown."""

    caption: str
    first: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class EvaluationView:
    """What was measured in one place."""

    title: str
    tables: tuple[NumberTable, ...]


def views(summary: Mapping[str, Any], class_names: Sequence[str]) -> tuple[EvaluationView, ...]:
    """Return what to show of each place where the model was measured."""
    evaluations = summary.get("evaluations") or {}
    return tuple(
        EvaluationView(
            f"After the last round, {_ON[place]} ({count(int(found['examples']), 'example')})",
            tuple(_tables(found, class_names)),
        )
        for place in PLACES
        if (found := evaluations.get(place))
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
    for i in indices[:_MOST_ROWS]:
        row = groups.get(i)
        own = (f"{row['examples']:,}", wording.figure(score, row["score"])) if row else (MISSING, MISSING)
        others = (
            wording.figure(name, values[i] if i < len(values) else None) for name, values in vectors.items()
        )
        label = class_names[i] if i < len(class_names) else str(i)
        rows.append(Row(label, (*(own if groups else ()), *others)))
    caption = "By class" + (
        f", the first {_MOST_ROWS} of {len(indices)}." if len(indices) > _MOST_ROWS else "."
    )
    return NumberTable(caption, "class", columns, tuple(rows))


def _is_vector(values: Any) -> bool:
    return isinstance(values, list) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )


def _by_client(clients: Mapping[str, Mapping[str, float | None]], headline: str) -> NumberTable:
    ids = sorted(clients, key=client_sort_key)
    rows = tuple(
        Row(
            i,
            (f"{int(clients[i].get('examples') or 0):,}", wording.figure(headline, clients[i].get(headline))),
        )
        for i in ids[:_MOST_ROWS]
    )
    caption = "By client, each on what it holds out itself"
    caption += f", the first {_MOST_ROWS} of {len(ids)}." if len(ids) > _MOST_ROWS else "."
    return NumberTable(caption, "client", ("examples", wording.figure_name(headline)), rows)
