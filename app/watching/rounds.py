"""The rounds of a run, as they are added to ``metrics.jsonl``, and what each client did in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError

from app.report.headline import shown_figures
from strategies.core.names import EVERYBODY
from strategies.runs.documents import Round
from strategies.runs.names import METRICS
from strategies.runs.tail import Tail

_MOST_CLIENTS = 300
_MOST_FAULTS = 100
_NOT_FIGURES = frozenset({"round", "seconds", "bytes-up", "bytes-down"})


@dataclass
class _Client:
    asked: int = 0
    answered: int = 0
    faults: int = 0
    last: str = ""


@final
class Rounds:
    """The rounds that were read so far; `generation` counts how often they were read anew."""

    def __init__(self, run: Path) -> None:
        self._tail = Tail(run / METRICS)
        self.generation = 0
        self._begin()

    def _begin(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._clients: dict[str, _Client] = {}
        self._latest: Mapping[str, Any] = {}
        self._rounds: set[int] = set()
        self.headline, self.loss = "", ""

    def update(self) -> bool:
        """Read what is new; return whether anything is."""
        anew, lines = self._tail.fresh()
        if anew:
            self.generation += 1
            self._begin()
        for line in lines:
            self._take(line)
        return anew or bool(lines)

    def clients(self) -> dict[str, Any]:
        """Return a row for each client, those with faults first, and how many more there are."""
        ordered = sorted(self._clients.items(), key=lambda item: -item[1].faults)
        rows = [[name, each.asked, each.answered, each.faults, each.last] for name, each in ordered]
        return {"rows": rows[:_MOST_CLIENTS], "more": max(0, len(rows) - _MOST_CLIENTS)}

    def latest(self) -> dict[str, Any] | None:
        """Return the last round: who answered, and what is wrong with whom; None before the first."""
        if not self._latest:
            return None
        faults = [[f["client"], f["scope"], f["reason"]] for f in self._latest.get("faults", ())]
        faulty = {fault[0] for fault in faults}
        answered = [str(name) for name in self._latest.get("accepted", ())]
        silent = [
            name for name in self._latest.get("selected", ()) if name not in faulty and name not in answered
        ]
        return {
            "round": self._latest["round"],
            "answered": answered[:_MOST_CLIENTS],
            "num-answered": len(answered),
            "silent": silent[:_MOST_CLIENTS],
            "faults": faults[:_MOST_FAULTS],
            "more-faults": max(0, len(faults) - _MOST_FAULTS),
        }

    def _take(self, line: dict[str, Any]) -> None:
        try:
            Round.model_validate(line)
        except ValidationError:
            return  # Damaged, or no round: `lethe report` says so
        if line["round"] in self._rounds:
            return
        self._rounds.add(line["round"])
        self._latest = line
        self.lines.append(_shown(line))
        if (found := shown_figures(self.lines[-1]["figures"]))[0] or not self.headline:
            self.headline, self.loss = found
        self._count(line)

    def _count(self, line: Mapping[str, Any]) -> None:
        for name in line.get("selected", ()):
            self._clients.setdefault(name, _Client()).asked += 1
        for name in line.get("accepted", ()):
            self._clients.setdefault(name, _Client()).answered += 1
        for fault in line.get("faults", ()):
            client = self._clients.setdefault(fault["client"], _Client())
            client.faults += 1
            client.last = f"{fault['scope']}: {fault['reason']}"


def _shown(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "round": line["round"],
        "seconds": line.get("seconds"),
        "up": line.get("bytes-up", 0),
        "down": line.get("bytes-down", 0),
        "asked": len(line.get("selected", ())),
        "answered": len(line.get("accepted", ())),
        "failed": len({fault["client"] for fault in line.get("faults", ())} - {EVERYBODY}),
        "figures": {
            key: value
            for key, value in line.items()
            if key not in _NOT_FIGURES and isinstance(value, int | float)
        },
    }
