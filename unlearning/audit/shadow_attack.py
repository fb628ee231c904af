"""What the attack with shadow models says of one method, and whether that decides anything.

Three comparisons are made with the same retrained models: of what the method leaves, of the models before
forgetting, which is what doing nothing leaves, and of the retrained models with each other. A method *fails*
if its models can be told from retrained ones at the level of 1 %, by all examples together or by a single
one. It *passes* if they cannot, if doing nothing can, so that there was something to find, and if the upper
end of the interval of its area under the curve is small. Anything else is *undecided*, and how many pairs
might decide it is said. The same swaps of pairs judge the method and doing nothing, so that a method that
does nothing never passes. All this is of the method; the audited model is one of what it leaves. So it must
look as the shadows' models do: one that is far outside of them does not pass with them.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from strategies.core.names import client_sort_key
from strategies.core.seeds import numpy_generator
from unlearning.audit.klom import MarginDivergence, margin_divergence
from unlearning.audit.likelihood_ratio import (
    DRAWS,
    LEAST_PAIRS,
    LikelihoodRatios,
    Rate,
    likelihood_ratios,
    ratios_of,
)
from unlearning.audit.margins import Margins, same_examples
from unlearning.audit.roc import Scores
from unlearning.student_t import two_sided

SETS = ("forget", "retain", "test")
"""Of examples, by what they are to the request."""
ShadowOutcome = Literal["passes", "fails", "undecided", "reference"]
LEVEL = 0.01
LARGEST_AREA = 0.6
"""Where the interval of an area must end for a method to pass."""
LEAST_TO_DECIDE = 8
"""Pairs from which on a p-value can be below the level: 1 / 2⁷. Where m tests share it, log₂ m more are."""
APART = 0.001
"""How improbable the audited model may be among the unlearned ones where a method passes."""
_MOST_SAID = 10_000
_SMALLEST_ERROR = 1e-9
_STANDARD_ERRORS = 1.96
"""From the middle of an interval of 95 % to its end."""


@dataclass(frozen=True)
class ExposedExample:
    """One of the examples that can be told best.

    Parameters
    ----------
    client, position
        Whose it is, and its place among the client's examples.
    effect, direction
        As in `likelihood_ratio.Exposure`.
    """

    client: str
    position: int
    effect: float
    direction: float


@dataclass(frozen=True)
class ClientFindings:
    """What the attack found of one client's examples alone; see `LikelihoodRatios`."""

    outcome: ShadowOutcome
    examples: int
    area: Rate
    p_value: float


@dataclass(frozen=True)
class ShadowFindings:
    """What the attack found of one method.

    Parameters
    ----------
    outcome, text
        The verdict, and in words.
    forgotten
        Of what the method leaves.
    nothing
        Of the models before forgetting.
    retraining
        Of half of the retrained models against the other half; None with fewer than six pairs.
    retained
        Of the retained examples, which forgetting may expose; None without any, or if they were too many.
    unseen
        Of test examples, which no model of a pair was trained on: what the method changes for any example.
        The forgotten ones give something of themselves away as far as they are told better than these. None
        without test data.
    audited
        Share of the forgotten examples that the audited model itself knows as the unlearned models do, rather
        than as the retrained ones do.
    audited_p_value
        Probability that one more of the unlearned models is as far from the others as the audited one is;
        None where its margins are not known.
    divergences
        KLoM on the ``forget``, ``retain`` and ``test`` examples; None where there were too few models.
    most_exposed
        The forgotten examples that can be told best.
    dropped
        Pairs in which a client did not answer about one of the models.
    by_client
        Where clients attacked their examples by themselves: what each found. The figures above are then those
        of the client whose examples are told best.
    clients
        Whose forgotten examples were attacked; empty in what a client finds by itself.
    """

    outcome: ShadowOutcome
    text: str
    forgotten: LikelihoodRatios
    nothing: LikelihoodRatios
    retraining: LikelihoodRatios | None
    retained: LikelihoodRatios | None
    unseen: LikelihoodRatios | None
    audited: float | None
    divergences: Mapping[str, MarginDivergence | None]
    most_exposed: tuple[ExposedExample, ...]
    dropped: int = 0
    by_client: Mapping[str, "ClientFindings"] = field(default_factory=dict)
    clients: tuple[str, ...] = ()
    audited_p_value: float | None = None

    def in_sums(self) -> "ShadowFindings":
        """Return the findings without anything of a single example."""
        return replace(
            self,
            forgotten=self.forgotten.in_sums(),
            nothing=self.nothing.in_sums(),
            retraining=self.retraining and self.retraining.in_sums(),
            retained=self.retained and self.retained.in_sums(),
            unseen=self.unseen and self.unseen.in_sums(),
            most_exposed=(),
            clients=(),
        )

    def silent_on(self, clients: Collection[str]) -> "ShadowFindings":
        """Return the findings without the positions of some clients' examples."""
        return replace(self, most_exposed=tuple(e for e in self.most_exposed if e.client not in clients))

    def without_word_of(self, clients: Collection[str]) -> "ShadowFindings":
        """Return the findings where clients whose examples were to be attacked, too, told nothing of them.

        Without their part nothing passes.
        """
        if not clients or self.outcome != "passes":
            return self
        missing = ", ".join(sorted(clients, key=client_sort_key))
        text = f"cannot be decided: client {missing} told nothing of its examples; of the others: {self.text}"
        return replace(self, outcome="undecided", text=text)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a mapping that `json` can write."""
        areas = {
            name: None if found is None else found.to_json()
            for name, found in (
                ("forgotten", self.forgotten),
                ("nothing", self.nothing),
                ("retraining", self.retraining),
                ("retained", self.retained),
                ("unseen", self.unseen),
            )
        }
        divergences = {
            name: None if found is None else found.to_json() for name, found in self.divergences.items()
        }
        exposed = [asdict(each) for each in self.most_exposed]
        return {
            "outcome": self.outcome,
            "text": self.text,
            **areas,
            "audited": self.audited,
            "audited-p-value": self.audited_p_value,
            "divergences": divergences,
            "most-exposed": exposed,
            "dropped": self.dropped,
            "by-client": {client_id: asdict(each) for client_id, each in self.by_client.items()},
            "clients": list(self.clients),
        }


@dataclass(frozen=True, eq=False)
class ShadowPair:
    """The margins under the models of one training seed.

    Parameters
    ----------
    before
        Under the model that was trained with everything.
    unlearned
        Under what the method made of that.
    retrained
        Under the model trained without the forgotten examples.
    """

    before: Margins
    unlearned: Margins
    retrained: Margins


@dataclass
class Baselines:
    """What is attacked beside every method: doing nothing, and retrained models among themselves.

    Methods about whose models the same clients answered share them, so that they are made once.

    Parameters
    ----------
    seed
        Draws the permutations and the bootstrap.
    draws, tests
        As of `likelihood_ratio.likelihood_ratios`; what no verdict depends on is one test.
    """

    seed: int
    draws: int = DRAWS
    tests: int = 1
    _made: dict[tuple[int, ...], tuple[LikelihoodRatios, LikelihoodRatios | None]] = field(
        default_factory=dict
    )

    def attack(self, ours: Scores, theirs: Scores, *, judged: bool = False) -> LikelihoodRatios:
        """Tell models from retrained ones, perhaps for a verdict; margins have shape [models, examples]."""
        generator, tests = numpy_generator(self.seed, "audit", "shadows"), self.tests if judged else 1
        return likelihood_ratios(ours, theirs, generator, draws=self.draws, tests=tests)

    def of(self, pairs: Sequence[ShadowPair]) -> tuple[LikelihoodRatios, LikelihoodRatios | None]:
        """Return what is found of doing nothing, and of retraining; None with fewer than six pairs.

        The same margins before and after retraining, which are told by their identity, are attacked once.
        """
        key = tuple(id(margins) for pair in pairs for margins in (pair.before, pair.retrained))
        if key not in self._made:
            theirs = _stacked([pair.retrained for pair in pairs])["forget"]
            before = _stacked([pair.before for pair in pairs])["forget"]
            half = len(pairs) // 2
            among = self.attack(theirs[:half], theirs[half : 2 * half]) if half >= LEAST_PAIRS else None
            self._made[key] = self.attack(before, theirs, judged=True), among
        return self._made[key]


def findings(
    pairs: Sequence[ShadowPair],
    audited: Margins | None,
    baselines: Baselines,
    *,
    most_others: int = 2_000,
) -> ShadowFindings | None:
    """Attack what a method leaves.

    Parameters
    ----------
    pairs
        One for each shadow seed.
    audited
        Margins under the audited model; None if they are not known.
    baselines
        Those of all methods of an audit, which live as long as the margins in `pairs`.
    most_others
        Retained examples, and test examples, that are attacked at most; of more, so many are drawn.

    Returns
    -------
    ShadowFindings or None
        None with fewer than three pairs about which all clients answered, or without forgotten examples.
    """
    whole = _answered(pairs)
    if len(whole) < LEAST_PAIRS or not len(whole[0].before.all_forgotten):
        return None

    unlearned = _stacked([pair.unlearned for pair in whole])
    retrained = _stacked([pair.retrained for pair in whole])
    ours, theirs = unlearned["forget"], retrained["forget"]
    forgotten = baselines.attack(ours, theirs, judged=True)
    nothing, retraining = baselines.of(whole)

    def attack_some(part: str, name: str) -> LikelihoodRatios | None:
        count = unlearned[part].shape[1]
        order = numpy_generator(baselines.seed, "audit", "shadows", name).permutation(count)
        chosen = np.sort(order[:most_others])
        if not count:
            return None
        return baselines.attack(unlearned[part][:, chosen], retrained[part][:, chosen])

    if audited is not None and not same_examples([audited, whole[0].unlearned]):
        audited = None
    before = _stacked([pair.before for pair in whole])["forget"]
    apart = None if audited is None else _apart(audited.all_forgotten, before, ours, theirs)
    outcome, text = verdict(forgotten, nothing, audited=apart)
    places = [
        (client, int(position)) for client, found in whole[0].unlearned.places.items() for position in found
    ]
    exposed = tuple(
        ExposedExample(*places[each.index], each.effect, each.direction) for each in forgotten.most_exposed
    )
    return ShadowFindings(
        outcome,
        text,
        forgotten,
        nothing,
        retraining,
        attack_some("retain", "retained"),
        attack_some("test", "unseen"),
        None if audited is None else float(np.mean(ratios_of(audited.all_forgotten, ours, theirs) > 0)),
        {part: margin_divergence(unlearned[part], retrained[part]) for part in unlearned},
        exposed,
        len(pairs) - len(whole),
        clients=tuple(whole[0].before.forgotten),
        audited_p_value=apart,
    )


def combined(found: Mapping[str, ShadowFindings]) -> ShadowFindings | None:
    """Return what several attacks say together, each on examples of its own; None without any.

    They fail where any of them does, at the level divided by their number, and pass where each does. Their
    figures are those of the attack with the smallest p-value, of equal ones of that with the area furthest
    from ½.

    Parameters
    ----------
    found
        By whose examples they are.
    """
    if not found:
        return None
    judged = {
        name: verdict(each.forgotten, each.nothing, len(found), each.audited_p_value)
        for name, each in found.items()
    }
    by_client = {
        name: ClientFindings(
            judged[name][0], each.forgotten.examples, each.forgotten.area, each.forgotten.p_value
        )
        for name, each in found.items()
    }
    outcomes = {outcome for outcome, _ in judged.values()}
    outcome: ShadowOutcome = (
        "fails" if "fails" in outcomes else "passes" if outcomes == {"passes"} else "undecided"
    )
    candidates = {name: each for name, each in found.items() if judged[name][0] == outcome}
    name = min(candidates, key=lambda each: _told(candidates[each].forgotten))
    text = judged[name][1]
    if len(found) > 1:
        text = f"{text} (client {name}, whose examples are told best of {len(found)} attacked by themselves)"
    clients = tuple(dict.fromkeys(client for each in found.values() for client in each.clients))
    return replace(found[name], outcome=outcome, text=text, by_client=by_client, clients=clients)


def _told(found: LikelihoodRatios) -> tuple[float, float]:
    return found.p_value, -abs(found.area.value - 0.5)


def verdict(
    forgotten: LikelihoodRatios,
    nothing: LikelihoodRatios,
    tests: int = 1,
    audited: float | None = None,
) -> tuple[ShadowOutcome, str]:
    """Return the outcome of an attack, which is one of several, and what it means.

    `audited` is `ShadowFindings.audited_p_value`.
    """
    area, level = forgotten.area, LEVEL / tests
    least = LEAST_TO_DECIDE + math.ceil(math.log2(tests))
    said = (
        f"an attacker with {forgotten.pairs} pairs of shadow models tells the forgotten examples from "
        f"never-seen ones with an area under the curve of {area.value:.2f} ({area.low:.2f} to "
        f"{area.high:.2f}; guessing 0.5, doing nothing {nothing.area.value:.2f})"
    )
    if forgotten.least_p_value > level:
        shared = "" if tests == 1 else f" for {tests} clients together"
        return "undecided", (
            f"cannot be decided with {forgotten.pairs} pairs of shadow models: a verdict at the level of 1 %"
            f"{shared} needs at least {least}; {said}"
        )
    if forgotten.p_value <= level:
        if forgotten.single_p_value < forgotten.area_p_value:
            said = f"single examples can be told from never-seen ones; over all of them, {said}"
        return "fails", f"fails: {said}, which chance gives in {_chance(forgotten.p_value)}"
    if nothing.p_value > level:
        return "undecided", (
            "cannot be decided: the model before forgetting cannot be told from a retrained one either, so "
            f"there is nothing to find on these examples; {said}"
        )
    # Twice the smallest: of a single example that is told in every pair, where the area is another way's
    if area.high <= LARGEST_AREA and forgotten.p_value > 2 * forgotten.least_p_value:
        return _passing(said, audited)
    return "undecided", (
        f"cannot be decided with {forgotten.pairs} pairs of shadow models; about "
        f"{_needed(forgotten, level)} might decide it; {said}"
    )


def _passing(said: str, audited: float | None) -> tuple[ShadowOutcome, str]:
    """Return the outcome where the method passes, and with it the audited model if it is as its shadows."""
    if audited is not None and audited <= APART:
        return "undecided", (
            "cannot be decided: the audited model itself is not like those that the method left of the "
            f"shadows, of which {said}"
        )
    return "passes", f"passes: {said}"


def _chance(p_value: float) -> str:
    return f"{100 * p_value:.2g} % of cases"


def _needed(forgotten: LikelihoodRatios, level: float) -> str:
    """Return how many pairs might decide, as an interval's width falls with the root of their number.

    Of an area below the limit these are so many that its interval ends there; of one above it, which can only
    fail, so many that it is as many standard errors from ½ as the level asks for.
    """
    area = forgotten.area
    if area.value < LARGEST_AREA:
        ratio = (area.high - area.value) / (LARGEST_AREA - area.value)
    else:
        error = (area.high - area.low) / (2 * _STANDARD_ERRORS)
        ratio = NormalDist().inv_cdf(1 - level) * error / (area.value - 0.5)
    needed = max(forgotten.pairs + 1, forgotten.pairs * ratio**2)
    return f"{math.ceil(needed)}" if needed < _MOST_SAID else f"more than {_MOST_SAID}"


def _answered(pairs: Sequence[ShadowPair]) -> list[ShadowPair]:
    """Return the pairs about whose models the same clients answered: as many as there are of such.

    Of equally many, the clients that were the first to answer about a pair.
    """
    whole = [each for each in pairs if same_examples([each.before, each.unlearned, each.retrained])]
    counts = Counter(each.before.examples for each in whole)
    most = max(counts.values(), default=0)
    told = next((examples for examples, count in counts.items() if count == most), None)
    return [each for each in whole if each.before.examples == told]


def _stacked(models: Sequence[Margins]) -> dict[str, Scores]:
    """Return the margins by kind of example, shape [models, examples] each."""
    return {
        "forget": np.stack([each.all_forgotten for each in models]),
        "retain": np.stack([each.retained for each in models]),
        "test": np.stack([each.unseen for each in models]),
    }


def _apart(audited: Scores, before: Scores, unlearned: Scores, retrained: Scores) -> float:
    """Return Student's p-value of the audited model as one more of the unlearned ones.

    What is compared is how much the forgotten examples are known as before rather than as after retraining,
    by the mean score over them; an unlearned model is judged without its own pair.
    """
    others = ~np.eye(len(before), dtype=bool)
    known = [ratios_of(unlearned[k], before[rows], retrained[rows]).mean() for k, rows in enumerate(others)]
    error = np.std(known, ddof=1) * math.sqrt(1 + 1 / len(known))
    moved = abs(float(ratios_of(audited, before, retrained).mean()) - float(np.mean(known)))
    return two_sided(moved / max(error, _SMALLEST_ERROR), len(known) - 1)
