"""Rank the clients of a run by how bad they look, and say whether one stands out.

Each sign (`from_log`, `left_out`) compares the clients with each other. A client stands out if by one of them
it is as far out as the worst of clients that differ by chance, and have one normal distribution, would be in
at most `level` of all runs (`outliers`; Bonferroni over the signs). What a test cannot know is whether the
clients' data are alike: an honest client whose data are unlike the others' stands out as well.

A client's score, by which those are ranked that do not stand out, is how many standard deviations it is out
by the direction and the length of its updates together. Its interval is that of the bootstrap: rounds are
drawn anew with replacement. It says how much the score hangs on single rounds, not how another training would
come out. Where a log holds one sum per client, there are no rounds to draw directions from, and no interval
is given.

Needs: the log, of any retention; no client. Cost: the log is read twice, and one evaluation of the server's
examples per client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from strategies.core.errors import BadInput
from strategies.core.seeds import numpy_generator
from strategies.log.reading import LogReader
from unlearning.run import TrainedRun
from unlearning.suspects import from_log, outliers
from unlearning.suspects.from_log import ClientSums
from unlearning.suspects.left_out import left_out, server_examples
from unlearning.suspects.outliers import Values
from unlearning.suspects.signs import Sign, together

LEVEL = 0.05
"""In how many of all runs without a bad client one may stand out."""
NO_LOG = (
    "suspects needs the update log, but the run was trained with log.enabled = false: nothing says who added "
    "what to the model"
)
NO_INTERVAL = (
    "no interval of the scores: of each client there is one direction or length alone, and not one per "
    "round, so nothing says how much it would vary"
)
DRAWS = 200
"""Of the bootstrap."""
_INTERVAL = (2.5, 97.5)
SIGNS = ("length", "direction", "loss", "class")
_OF_UPDATES = SIGNS[:2]


@dataclass(frozen=True)
class Suspect:
    """What is known of one client.

    Parameters
    ----------
    rank
        From 1, which looks worst.
    score
        Standard deviations by which it is out, by the direction and length of its updates.
    interval
        Bounds of the score, 95 %; None where a sign has one sample of each client, as in a log of sums.
    p
        How often a client that differs by chance would be as far out, corrected for clients and signs.
    reasons
        Why it stands out; empty if it does not.
    signs
        By name: ``value``; ``score``, the standard deviations by which it is out by this sign alone; and
        ``p`` of this sign, corrected likewise.
    """

    client_id: str
    rank: int
    score: float
    interval: tuple[float, float] | None
    p: float
    reasons: tuple[str, ...]
    signs: Mapping[str, Mapping[str, float | None]]

    @property
    def stands_out(self) -> bool:
        """Whether chance alone would rarely put it so far out."""
        return bool(self.reasons)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "client": self.client_id,
            "rank": self.rank,
            "score": self.score,
            "interval": None if self.interval is None else list(self.interval),
            "p": self.p,
            "stands-out": self.stands_out,
            "reasons": list(self.reasons),
            "signs": {name: dict(figures) for name, figures in self.signs.items()},
        }


@dataclass(frozen=True)
class Suspects:
    """All clients, the worst first.

    Parameters
    ----------
    level
        The false-alarm rate.
    not_judged
        Sign -> why the log or the run says nothing of it.
    notes
        What the reader must know of the figures.
    """

    level: float
    clients: Sequence[Suspect]
    not_judged: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def standing_out(self) -> list[str]:
        """The ids of the clients that stand out, the worst first."""
        return [suspect.client_id for suspect in self.clients if suspect.stands_out]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "level": self.level,
            "standing-out": self.standing_out,
            "clients": [suspect.to_json() for suspect in self.clients],
            "not-judged": dict(self.not_judged),
            "notes": list(self.notes),
        }


def find_suspects(run: TrainedRun, level: float = LEVEL) -> Suspects:
    """Rank the clients of a finished run.

    Parameters
    ----------
    level
        False-alarm rate, above 0 and below 1.

    Raises
    ------
    BadInput
        If there is no log, or it holds fewer than two clients.
    RunCorrupt
        If the log is damaged.
    """
    if run.log is None:
        raise BadInput(NO_LOG)
    log, purged = run.log, run.log.purged()
    clients = [i for i in log.clients() if i not in purged]
    if len(clients) < 2:
        raise BadInput(f"suspects compares clients with each other, but the log holds {len(clients)} of them")
    signs, not_judged = _signs(run, log, clients)
    notes = [f"client {i} is not judged: its updates were purged" for i in purged]
    silent = [i for i in run.clients if i not in log.clients()]
    notes += [f"client {i} is not judged: no update of it was used in any round" for i in silent]
    if len(clients) < outliers.LEAST:
        notes.append(
            f"of {len(clients)} clients none can be told from the others; that takes {outliers.LEAST}"
        )
    if any(sign.name in _OF_UPDATES and len(sign.samples) == 1 for sign in signs):
        notes.append(NO_INTERVAL)
    ranked = _ranked(clients, signs, level, numpy_generator(run.seed, "suspects"))
    return Suspects(level, ranked, not_judged, notes)


def _signs(run: TrainedRun, log: LogReader, clients: Sequence[str]) -> tuple[list[Sign], dict[str, str]]:
    """Return the signs that the run allows, and why it does not allow the others."""
    found = [from_log.lengths(log, clients)]
    if unreadable := log.unreadable():
        why = f"the key of client {unreadable[0]}'s updates is not on this machine"
        return found, dict.fromkeys(SIGNS[1:], why)
    sums = ClientSums.of(log, clients, run.final - run.initial)
    found += _directions(log, clients, sums)
    missing = {} if len(found) > 1 else {"direction": "no round whose updates are kept had two clients"}
    examples = server_examples(run, len(clients))
    why = _no_left_out(run, log) or ("" if examples is not None else "the server has no data of its own")
    if why or examples is None:
        return found, {**missing, "loss": why, "class": why}
    compared = left_out(run, sums, examples)
    reasons = {
        "loss": "the server's own data have no labels",
        "class": f"the targets of the task ({run.task.name}) are no class labels",
    }
    named = [sign.name for sign in compared]
    return [*found, *compared], {**missing, **{name: reasons[name] for name in reasons if name not in named}}


def _directions(log: LogReader, clients: Sequence[str], sums: ClientSums) -> list[Sign]:
    """Return the sign of the directions by what the log keeps; none if no client was with another."""
    summed = log.retention.kind == "sum"
    found = from_log.summed_directions(sums) if summed else from_log.directions(log, clients)
    return [found] if len(found.samples) else []


def _no_left_out(run: TrainedRun, log: LogReader) -> str:
    """Return why no client can be left out of the model by subtraction; empty if each can."""
    if log.retention.kind != "sum" and not all(map(log.retention.keeps, log.rounds())):
        return f"log.retention = '{log.retention}' keeps no sum of all updates; 'full' and 'sum' do"
    if log.averaging_rounds() != log.rounds():
        return f"{run.plan.strategy.name} did not add the average of the updates to the model"
    if run.local_layers:
        return "layers stay with each client, so the server has no whole model"
    return ""


def _ranked(
    clients: Sequence[str], signs: Sequence[Sign], level: float, generator: np.random.Generator
) -> list[Suspect]:
    """Return the clients, the worst first: those that stand out by any sign, then by their updates."""
    updates = [sign for sign in signs if sign.name in _OF_UPDATES]
    scores = together([sign.values for sign in updates])
    several = all(len(sign.samples) > 1 for sign in updates)
    low, high = np.percentile(_drawn(updates, generator), _INTERVAL, axis=0)
    p = np.minimum(len(signs) * np.stack([sign.p for sign in signs]), 1.0)  # [signs, clients]
    least = p.min(axis=0)
    order = np.lexsort((-scores, np.where(least <= level, least, 1.0)))
    found = []
    for rank, k in enumerate(order, start=1):
        figures: dict[str, dict[str, float | None]] = {
            str(sign.name): {"value": sign.shown[k], "score": float(sign.scores[k]), "p": float(p[row, k])}
            for row, sign in enumerate(signs)
        }
        reasons = tuple(sign.reason for row, sign in enumerate(signs) if p[row, k] <= level)
        bounds, score = (float(low[k]), float(high[k])) if several else None, float(scores[k])
        found.append(Suspect(clients[k], rank, score, bounds, float(least[k]), reasons, figures))
    return found


def _drawn(updates: Sequence[Sign], generator: np.random.Generator) -> Values:
    """Return the scores of the clients by rounds that are drawn anew, shape [DRAWS, clients].

    Signs of as many rounds get the same ones.
    """
    counts: dict[int, Values] = {}
    for count in sorted({len(sign.samples) for sign in updates}):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
        counts[count] = drawn.astype(float)
    return together([sign.resampled(counts[len(sign.samples)]) for sign in updates])
