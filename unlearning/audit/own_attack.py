"""The attack with shadow models, carried out by a client on its own examples.

Where clients tell only sums of what they know (``audit.answers=aggregate``), the server cannot tell single
examples apart. A client can: it gets all pairs of models in one message, attacks its examples as the server
would (`unlearning.audit.shadow_attack`), and answers with figures of all of them together: areas, rates,
percentiles. No position, and no number of one example, is among them. They are exact, and not private: of a
client with a single forgotten example they are figures of that.

The server checks that an answer could have come from some models, words the verdict itself, and, like every
other figure of a client, takes it on trust.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.server.cohort import Cohort
from strategies.task import CLASSIFICATION, Task
from unlearning.audit.klom import PERCENTILES, MarginDivergence
from unlearning.audit.likelihood_ratio import DRAWS, FALSE_POSITIVES, LikelihoodRatios, num_swaps
from unlearning.audit.margins import Margins
from unlearning.audit.shadow_attack import SETS, Baselines, ShadowFindings, ShadowPair, findings, verdict
from unlearning.forget_spec import ForgetSpec, spec_for
from unlearning.request import ForgetRequest

PAIRS = "shadow-pairs"
"""int, server to client, in an audit's question: how many pairs of models its arrays hold."""
TESTS = "shadow-tests"
"""int, server to client: how many attacks share the level of the verdict, of which this is one."""
SEED = "shadow-seed"
"""int, server to client: draws the permutations and the bootstrap."""
FINDINGS = "shadow-findings"
"""str, client to server: what the attack found, as JSON; empty: the client has no example for it."""
AUDITED = "audited"
_SIDES = ("before", "unlearned", "retrained")
_PARTS = ("forgotten", "nothing", "retraining", "retained", "unseen")
_MOST_TEXT = 64 * 1024
_MOST_TESTS = 1_000
_FOUND = TypeAdapter(ShadowFindings)


@final
@dataclass(frozen=True, eq=False)
class PairModels:
    """Parameters of the models of one training seed, shape [layout.size] each; see `ShadowPair`."""

    before: Tensor
    unlearned: Tensor
    retrained: Tensor


def is_wanted(question: RecordDict) -> bool:
    """Whether an audit's question asks for this attack."""
    return PAIRS in question.config_records.get(wire.CONFIG, ConfigRecord())


def answer_attack(
    question: RecordDict,
    examples: Examples,
    build_model: Callable[[ArrayRecord], nn.Module],
    spec: ForgetSpec,
    task: Task = CLASSIFICATION,
) -> dict[str, str]:
    """Attack a client's examples under the question's models; returns the texts of the reply.

    Parameters are those of `unlearning.audit.evidence.answer_question`.
    """
    config, records = question.config_records[wire.CONFIG], question.array_records
    left = spec.unforgotten(examples)
    forget, examples = spec.named(examples)[left].numpy(), examples.split(left)[0]
    nobody = np.zeros(0)

    def under(name: str) -> Margins:
        outputs = outputs_of(build_model(records[name]), examples, task=task)
        margins = task.confidences(outputs, examples.targets()).double().numpy()
        # Whose they are is the server's business, and where they lie is not
        return Margins({"": margins[forget]}, margins[~forget], nobody, {"": np.flatnonzero(forget)})

    count = _int(config, PAIRS)
    pairs = [ShadowPair(*(under(_name(side, k)) for side in _SIDES)) for k in range(count)]
    tests = _int(config, TESTS)
    if not 1 <= tests <= _MOST_TESTS:
        raise ValueError(f"'{TESTS}' is {tests}, expected 1 to {_MOST_TESTS}")
    found = findings(pairs, under(AUDITED), Baselines(_int(config, SEED), tests=tests))
    return {FINDINGS: "" if found is None else _FOUND.dump_json(found.in_sums()).decode()}


def _int(config: ConfigRecord, name: str) -> int:
    value = config[name]
    if not isinstance(value, int):
        raise TypeError(f"'{name}' is {value!r}, expected a whole number")
    return value


def _name(side: str, number: int) -> str:
    return f"{side}-{number}"


def read_findings(text: object, pairs: int, forgotten: int, tests: int = 1) -> ShadowFindings | None:
    """Read a client's findings back, and check them; None if it had no example for them.

    Parameters
    ----------
    text
        As `answer_attack` makes it.
    pairs
        How many it was asked about.
    forgotten
        How many of its examples are to be forgotten, as it said.
    tests
        How many attacks share the level of the verdict, as it was told.

    Raises
    ------
    ValueError
        If no attack could have found this.
    """
    if text == "" and not forgotten:
        return None
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        raise ValueError(f"'{FINDINGS}' is no text of at most {_MOST_TEXT} characters")
    try:
        found = _FOUND.validate_json(text).in_sums()
    except ValidationError as error:
        raise ValueError(f"'{FINDINGS}' is not what the attack finds: {error.errors()[0]['msg']}") from None
    _check_figures(found, pairs, tests)
    for each in (found.forgotten, found.nothing):
        if each.examples != forgotten:
            raise ValueError(f"'{FINDINGS}' is of {each.examples} examples, the request names {forgotten}")
    # A client's own words are printed nowhere
    outcome, said = verdict(found.forgotten, found.nothing, audited=found.audited_p_value)
    return replace(found, outcome=outcome, text=said, by_client={}, clients=())


def _check_figures(found: ShadowFindings, pairs: int, tests: int) -> None:
    """Refuse, with a ValueError, figures that no attack with so many pairs of models could give."""
    known = [part for name in _PARTS if (part := getattr(found, name)) is not None]
    shares = [each for each in (found.audited, found.audited_p_value) if each is not None]
    if not all(map(_is_possible, known)) or not all(map(_is_share, shares)):
        raise ValueError(f"'{FINDINGS}' holds shares that are none")
    if not (found.divergences.keys() <= set(SETS) and all(map(_are_percentiles, found.divergences.values()))):
        raise ValueError(f"'{FINDINGS}' holds divergences that are none")
    least = 1 / num_swaps(pairs, DRAWS * tests)
    if {found.forgotten.least_p_value, found.nothing.least_p_value} != {least}:
        raise ValueError(f"'{FINDINGS}' holds p-values of another test than {pairs} pairs of models allow")
    if {found.forgotten.pairs, found.nothing.pairs} != {pairs} or found.dropped:
        raise ValueError(f"'{FINDINGS}' is of other models than the {pairs} pairs that were sent")


def _is_possible(found: LikelihoodRatios) -> bool:
    figures = [found.area, found.accuracy, *(rate for rate in found.rates.values() if rate is not None)]
    chances = [found.p_value, found.area_p_value, found.single_p_value]
    return (
        all(_is_share(rate.value) and 0 <= rate.low <= rate.high <= 1 for rate in figures)
        and all(0 < found.least_p_value <= chance <= 1 for chance in chances)
        and found.rates.keys() == set(FALSE_POSITIVES)
        and found.examples > 0
    )


def _are_percentiles(found: MarginDivergence | None) -> bool:
    return found is None or all(
        side.keys() == set(PERCENTILES) and all(map(math.isfinite, side.values()))
        for side in (found.unlearned, found.floor)
    )


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


@final
class OwnAttackQuestions:
    """Makes each client's question; clients with the same question share one record."""

    def __init__(
        self,
        request: ForgetRequest,
        layout: wire.Layout,
        pairs: Sequence[PairModels],
        audited: Tensor,
        earlier: Sequence[ForgetRequest],
        seed: int,
        tests: int = 1,
    ) -> None:
        self._request, self._earlier = request, earlier
        self.tests = min(tests, _MOST_TESTS)
        self._told = {PAIRS: len(pairs), SEED: seed, TESTS: self.tests}
        self._records = {AUDITED: wire.FlatRecord(audited, layout)}
        for number, pair in enumerate(pairs):
            for side in _SIDES:
                self._records[_name(side, number)] = wire.FlatRecord(getattr(pair, side), layout)
        self._made: dict[ForgetSpec, RecordDict] = {}

    def __call__(self, client_id: str) -> RecordDict:
        """Return the content of a client's message."""
        spec = self.spec(client_id)
        if spec not in self._made:
            config = spec.to_config()
            config.update(self._told)
            self._made[spec] = RecordDict({**self._records, wire.CONFIG: config})
        return self._made[spec]

    def spec(self, client_id: str) -> ForgetSpec:
        """Return which of a client's examples are to be forgotten, and which were earlier."""
        return spec_for(self._request, client_id, self._earlier)


def ask_clients(
    cohort: Cohort, questions: OwnAttackQuestions, pairs: int, holders: Mapping[str, int], scope: str
) -> dict[str, ShadowFindings]:
    """Return what each client finds that holds some of the forgotten examples.

    An answer that no attack could have given is recorded as a fault of its client, as no answer is.

    Parameters
    ----------
    holders
        Client -> how many examples of its own are to be forgotten.
    scope
        Names the exchange in the list of faults.
    """
    found: dict[str, ShadowFindings] = {}
    for reply in cohort.ask(wire.AUDIT, questions, list(holders), scope):
        client_id, config = reply.client_id, reply.message.content.config_records.get(wire.CONFIG)
        try:
            told: Any = None if config is None else config.get(FINDINGS)
            own = read_findings(told, pairs, holders[client_id], questions.tests)
        except ValueError as error:
            cohort.add_fault(client_id, scope, str(error))
            continue
        if own is not None:
            found[client_id] = replace(own, clients=(client_id,))
    return {client_id: found[client_id] for client_id in holders if client_id in found}
