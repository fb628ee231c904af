"""Rank the clients of a run by how bad they look, and say whether one stands out.

Each sign (`from_log`, `left_out`) compares the clients with each other. A client's score is how many standard
deviations it is out by its worst sign; it stands out if that happens to the worst of clients that differ by
chance, and have one normal distribution, in at most `level` of all runs (`outliers`; Bonferroni over signs).
What the test cannot know is whether the clients' data are alike: an honest client whose data are unlike the
others' stands out as well.

The interval of a score is that of the bootstrap: rounds, and the server's examples, are drawn anew with
replacement, the percentiles of the scores are reported. It says how much the score hangs on single rounds and
examples, not how another training would come out.

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
from unlearning.suspects.outliers import Values, scores_of
from unlearning.suspects.signs import Sign

LEVEL = 0.05
"""In how many of all runs without a bad client one may stand out."""
NO_LOG = (
    "suspects needs the update log, but the run was trained with log.enabled = false: nothing says who added "
    "what to the model"
)
DRAWS = 200
"""Of the bootstrap."""
_INTERVAL = (2.5, 97.5)
SIGNS = ("length", "direction", "loss", "class")


@dataclass(frozen=True)
class Suspect:
    """What is known of one client.

    Parameters
    ----------
    rank
        From 1, which looks worst.
    score
        Standard deviations by which it is out, by its worst sign.
    interval
        Bounds of the score, 95 %.
    p
        How often a client that differs by chance would be as far out, corrected for clients and signs.
    reasons
        Why it stands out: the signs whose p is at most the level; empty if it does not.
    signs
        By name: ``value``, ``score`` and ``p`` before the correction for signs.
    """

    client_id: str
    rank: int
    score: float
    interval: tuple[float, float]
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
            "interval": list(self.interval),
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
    if len(clients) < outliers.LEAST:
        notes.append(
            f"of {len(clients)} clients none can be told from the others; that takes {outliers.LEAST}"
        )
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
    """Return the clients, the worst first."""
    scores = np.stack([sign.scores for sign in signs])
    each = np.stack([sign.p for sign in signs])  # [signs, clients]
    p = np.minimum(len(signs) * each, 1.0)
    low, high = np.percentile(_drawn(signs, generator), _INTERVAL, axis=0)
    worst = scores.max(axis=0)
    found = []
    for rank, k in enumerate(np.argsort(-worst, kind="stable"), start=1):
        figures = {
            str(sign.name): {"value": sign.shown[k], "score": float(scores[row, k]), "p": float(each[row, k])}
            for row, sign in enumerate(signs)
        }
        reasons = tuple(sign.reason for row, sign in enumerate(signs) if p[row, k] <= level)
        bounds, least = (float(low[k]), float(high[k])), float(p[:, k].min())
        found.append(Suspect(clients[k], rank, float(worst[k]), bounds, least, reasons, figures))
    return found


def _drawn(signs: Sequence[Sign], generator: np.random.Generator) -> Values:
    """Return the scores of the clients by samples that are drawn anew, shape [DRAWS, clients].

    Signs with as many samples of a unit get the same ones.
    """
    counts: dict[tuple[str, int], Values] = {}
    for sign in signs:
        key = sign.unit, len(sign.samples)
        if key not in counts:
            counts[key] = generator.multinomial(key[1], np.full(key[1], 1 / key[1]), size=DRAWS).astype(float)
    drawn = [scores_of(sign.resampled(counts[sign.unit, len(sign.samples)])) for sign in signs]
    found: Values = np.max(drawn, axis=0)
    return found
