"""Where the time of a deployed round goes, from notes of when each message came and went."""

import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from benchmarks.deployed import stamped
from strategies.core.errors import LetheError

PARTS = (
    "server",
    "push",
    "supernode-polls",
    "transfer-down",
    "executor-polls",
    "process-start",
    "task-input",
    "bundle",
    "imports",
    "work",
    "hand-over",
    "supernode-looks",
    "transfer-up",
    "server-polls",
)
"""Of a round, in their order: the ServerApp's own work after the round before, then what lies between each
two of `stamped.EVENTS`."""
_TRAIN = "train"

Seconds = Mapping[str, float]
"""Part -> seconds."""


@dataclass(frozen=True)
class Stamp:
    """What happened to a message, and when; of a push, also the message's type."""

    event: str
    message: str
    at: float
    kind: str = ""


def put_ahead(folder: Path) -> dict[str, str]:
    """Make a folder with the programs that take notes; return the environment in which they are found.

    Parameters
    ----------
    folder
        Gets the programs, and the notes in ``stamps.jsonl``.
    """
    programs = folder / "programs"
    programs.mkdir()
    source = Path(stamped.__file__).read_text(encoding="utf-8")
    for name in stamped.PROGRAMS:
        program = programs / name
        program.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
        program.chmod(0o700)
    path = (str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    return {stamped.STAMPS: str(folder / "stamps.jsonl"), "PATH": os.pathsep.join(path)}


def read(folder: Path) -> list[Stamp]:
    """Return the notes that the programs have left."""
    lines = (folder / "stamps.jsonl").read_text(encoding="utf-8").splitlines()
    return [Stamp(**json.loads(line)) for line in lines]


def rounds(stamps: Iterable[Stamp]) -> list[Seconds]:
    """Return the parts of each round of training but the first, whose sum is the round.

    A round goes from the last reply of the one before to its own last reply. The parts are those of the
    message that is answered last; a part begins when the one before it has ended.

    Parameters
    ----------
    stamps
        In any order.

    Raises
    ------
    LetheError
        If a note is missing.
    """
    pushes: dict[float, list[str]] = defaultdict(list)
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for each in stamps:
        times[each.message][each.event] = each.at
        if each.event == "push" and each.kind == _TRAIN:
            pushes[each.at].append(each.message)
    last = [_last(pushes[at], times) for at in sorted(pushes)]
    return [_parts(before[-1], way) for before, way in pairwise(last)]


def _last(messages: Sequence[str], times: Mapping[str, Mapping[str, float]]) -> list[float]:
    """Return the times of the message that was answered last."""
    for message in messages:
        if missing := [event for event in stamped.EVENTS if event not in times[message]]:
            raise LetheError(f"message {message}: nothing tells when it was {missing[0]}")
    slowest = max(messages, key=lambda message: (times[message]["fetched"], times[message]["sent"]))
    return [times[slowest][event] for event in stamped.EVENTS]


def _parts(before: float, way: Sequence[float]) -> Seconds:
    """Return the parts of a way that follows on a time.

    Notes of two processes may cross: a reply can be fetched before its sender knows that it was sent.
    """
    end = way[-1]
    ordered = list(accumulate((min(at, end) for at in way), max, initial=before))
    return {part: after - earlier for part, (earlier, after) in zip(PARTS, pairwise(ordered), strict=True)}


def medians(found: Sequence[Seconds]) -> dict[str, float]:
    """Return the median of each part over rounds.

    Examples
    --------
    >>> found = medians([dict.fromkeys(PARTS, seconds) for seconds in (1.0, 4.0, 2.0)])
    >>> found["server"], found["work"]
    (2.0, 2.0)
    """
    return {part: statistics.median(each[part] for each in found) for part in PARTS}
