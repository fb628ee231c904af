"""Which runs of a list are wanted."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from strategies.core.conditions import shown
from strategies.core.errors import BadInput

STATES = ("finished", "pruned", "unfinished")
"""What a run can be; a pruned run is finished."""
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*([\w.-]+?)\s*(>=|<=|>|<|=)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class RunFilter:
    """What the rows of a list of runs must have; empty texts ask for nothing.

    Parameters
    ----------
    strategy, state
        The algorithm's name; one of `STATES`.
    since
        A date or time (``2026-11-29``, ``2026-11-29T10:30``), or how long ago (``90m``, ``12h``, ``3d``,
        ``2w``), that the run was begun after.
    forgotten
        A client-id that the run has forgotten.
    where
        A figure's threshold, such as ``accuracy > 90`` or ``seconds <= 60``.

    Raises
    ------
    BadInput
        If one of them cannot be read.
    """

    strategy: str = ""
    state: str = ""
    since: str = ""
    forgotten: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        """Check all but the names."""
        if self.state and self.state not in STATES:
            raise BadInput(f"--state: given {shown(self.state)}, allowed {', '.join(STATES)}")
        if self.since:
            since_when(self.since)
        if self.where:
            parsed_condition(self.where)

    def chosen(
        self, rows: Iterable[Mapping[str, Any]], now: datetime | None = None
    ) -> list[Mapping[str, Any]]:
        """Return the rows that are wanted, `now` being the time to reckon from.

        Raises
        ------
        BadInput
            If there are figures, but none of the name in `where`.
        """
        listed = list(rows)
        kept = [row for row in listed if self._is_plain(row) and self._is_recent(row, now)]
        if not self.where:
            return kept
        name, compare, bound = parsed_condition(self.where)
        known = sorted({name for row in listed for name in figures_in(row)})
        if known and name not in known:
            raise BadInput(f"--where: given {shown(name)}, no run has it; they have {', '.join(known)}")
        values = [(row, figures_in(row).get(name)) for row in kept]
        return [row for row, value in values if value is not None and compare(value, bound)]

    def _is_plain(self, row: Mapping[str, Any]) -> bool:
        return (
            self.strategy in {"", row.get("strategy")}
            and (self.state in {"", row["state"]} or (self.state, row["state"]) == ("finished", "pruned"))
            and (not self.forgotten or self.forgotten in row.get("forgotten-clients", ()))
        )

    def _is_recent(self, row: Mapping[str, Any], now: datetime | None) -> bool:
        if not self.since:
            return True
        created = row.get("created")
        return created is not None and datetime.fromisoformat(created) >= since_when(self.since, now)


def figures_in(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a run by the names that a condition may use.

    >>> figures_in({"rounds": 3, "figures": {"test-accuracy": 91.5}})
    {'test-accuracy': 91.5, 'rounds': 3, 'accuracy': 91.5}
    """
    found = {**(row.get("figures") or {}), **{key: row.get(key) for key in ("rounds", "seconds", "epsilon")}}
    shorter = {key.removeprefix("test-"): value for key, value in found.items() if key.startswith("test-")}
    headline = row.get("headline") or {}
    own = {headline["name"]: headline["value"]} if headline else {}
    return {key: value for key, value in {**found, **shorter, **own}.items() if value is not None}


def parsed_condition(text: str) -> tuple[str, Callable[[float, float], bool], float]:
    """Return the figure, the comparison and the threshold of a text such as ``accuracy > 90``."""
    found = _CONDITION.fullmatch(text)
    try:
        if found:
            return found[1], _COMPARISONS[found[2]], float(found[3])
    except ValueError:
        pass  # such as 1.2.3, which is refused as anything else is
    raise BadInput(f"--where: given {shown(text)}, allowed FIGURE > NUMBER, with >, >=, <, <= or =")


def since_when(text: str, now: datetime | None = None) -> datetime:
    """Return the time that ``3d``, ``2026-11-29`` and the like stand for; BadInput if it is none."""
    moment = datetime.now(UTC) if now is None else now
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return moment - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"--since: given {shown(text)}, allowed a date (2026-11-29), a time (2026-11-29T10:30), or how "
            "long ago (90m, 12h, 3d, 2w)"
        ) from None
    return given if given.tzinfo is not None else given.astimezone()
