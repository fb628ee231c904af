"""The attack with shadow models, carried out by a client on its own examples.

Where clients tell only sums of what they know (``audit.answers=aggregate``), the server cannot tell single
examples apart. A client can: it is shown the models of all pairs, a few in each message, and keeps how
confident each is of its examples. In the end it attacks them as the server would
(`unlearning.audit.shadow_attack`), and answers with figures of all examples together: areas, rates,
percentiles. No position, and no number of one example, is among them. They are exact, and not private: of a
client with a single forgotten example they are figures of that.

The server checks that an answer could have come from some models, words the verdict itself, and, like every
other figure of a client, takes it on trust.
"""

import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
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

ATTACK = "shadow-attack"
"""str, server to client, in an audit's question: names the attack that its models are shown for."""
METHOD = "shadow-method"
"""str, server to client: the method to attack, once all models were shown. Without it models are shown."""
PAIRS = "shadow-pairs"
"""int, server to client: how many pairs of models the attack is by."""
TESTS = "shadow-tests"
"""int, server to client: how many attacks share the level of the verdict, of which this is one."""
SEED = "shadow-seed"
"""int, server to client: draws the permutations and the bootstrap."""
LAST = "shadow-last"
"""bool, server to client: it was the last question, and the client drops what it knows of the models."""
SHOWN = "shadow-shown"
"""int, client to server: how many models it was shown."""
FINDINGS = "shadow-findings"
"""str, client to server: what the attack found, as JSON; empty: the client has no example for it."""
STATE = "shadow-margins"
"""Start of the name of a record in ``context.state``: how confident the models of an attack are."""
MESSAGE_BYTES = 2**28
"""Of the models in one message, in which there is one at least."""
_ENTRY_BYTES = 4
_AUDITED, _BEFORE, _RETRAINED = "audited", "before", "retrained"
_PARTS = ("forgotten", "nothing", "retraining", "retained", "unseen")
_MOST_TEXT = 64 * 1024
_MOST_TESTS = 1_000
_FOUND = TypeAdapter(ShadowFindings)


def is_wanted(question: RecordDict) -> bool:
    """Whether an audit's question asks for this attack."""
    return ATTACK in question.config_records.get(wire.CONFIG, ConfigRecord())


def answer_attack(
    question: RecordDict,
    examples: Examples,
    build_model: Callable[[ArrayRecord], nn.Module],
    spec: ForgetSpec,
    state: RecordDict,
    task: Task = CLASSIFICATION,
) -> dict[str, int | str]:
    """Look at the question's models, or attack a client's examples; returns the entries of the reply.

    Parameters are those of `unlearning.audit.evidence.answer_question`, and

    Parameters
    ----------
    state
        The client's ``context.state``, changed in place.

    Raises
    ------
    ValueError
        If an attack is by models that the client was not shown, or its examples changed meanwhile.
    """
    config = question.config_records[wire.CONFIG]
    left = spec.unforgotten(examples)
    forget, examples = spec.named(examples)[left].numpy(), examples.split(left)[0]
    known = KnownMargins(state, str(config[ATTACK]))
    if METHOD not in config:
        for name, record in question.array_records.items():
            outputs = outputs_of(build_model(record), examples, task=task)
            known.add(name, task.confidences(outputs, examples.targets()).double())
        return {SHOWN: len(question.array_records)}
    method, tests = str(config[METHOD]), _int(config, TESTS)
    if not 1 <= tests <= _MOST_TESTS:
        raise ValueError(f"'{TESTS}' is {tests}, expected 1 to {_MOST_TESTS}")

    def under(name: str) -> Margins:
        margins = known.under(name, len(examples))
        # Whose they are is the server's business, and where they lie is not
        return Margins({"": margins[forget]}, margins[~forget], np.zeros(0), {"": np.flatnonzero(forget)})

    sides = (_BEFORE, method, _RETRAINED)
    pairs = [ShadowPair(*(under(name_of(side, k)) for side in sides)) for k in range(_int(config, PAIRS))]
    found = findings(pairs, under(name_of(method, _AUDITED)), Baselines(_int(config, SEED), tests=tests))
    if config.get(LAST):
        known.forget()
    return {FINDINGS: "" if found is None else _FOUND.dump_json(found.in_sums()).decode()}


@final
class KnownMargins:
    """What a client's state holds of an attack: how confident each model is of its examples, shape [n].

    What it holds of another attack, which was broken off, is dropped.
    """

    def __init__(self, state: RecordDict, attack: str) -> None:
        self._state, self._name = state, f"{STATE}/{attack}"
        for name in [name for name in state if name.startswith(f"{STATE}/") and name != self._name]:
            del state[name]

    def add(self, name: str, margins: Tensor) -> None:
        """Keep the margins under a model, float64."""
        known = self._state.array_records.get(self._name, ArrayRecord())
        known[name] = Array(margins.numpy())
        self._state[self._name] = known

    def under(self, name: str, count: int) -> NDArray[np.float64]:
        """Return the margins of `count` examples under a model; raises as `answer_attack`."""
        known = self._state.array_records.get(self._name, ArrayRecord())
        if name not in known:
            raise ValueError(f"the client was not shown the model '{name}' of this attack")
        margins = known[name].numpy()
        if margins.shape != (count,):
            raise ValueError(f"the client has {count} examples, but had {len(margins)} as it saw '{name}'")
        return margins

    def forget(self) -> None:
        """Drop all of it."""
        self._state.pop(self._name, None)


def _int(config: ConfigRecord, name: str) -> int:
    value = config[name]
    if not isinstance(value, int):
        raise TypeError(f"'{name}' is {value!r}, expected a whole number")
    return value


def name_of(side: str, number: int | str) -> str:
    """Return the name by which a client is shown a model: of a side of a pair, or the audited one."""
    return f"{side}/{number}"


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
@dataclass(frozen=True, eq=False)
class AttackModels:
    """Parameters of the models that an attack is by, shape [layout.size] each; see `ShadowPair`.

    Parameters
    ----------
    before, retrained
        Of each training seed.
    unlearned
        Method -> what it left of each training seed's model.
    audited
        Method -> the model that is judged.
    """

    before: Sequence[Tensor]
    retrained: Sequence[Tensor]
    unlearned: Mapping[str, Sequence[Tensor]]
    audited: Mapping[str, Tensor]

    def by_name(self) -> dict[str, Tensor]:
        """Return each under the name by which clients are shown it."""
        sides = {_BEFORE: self.before, _RETRAINED: self.retrained, **self.unlearned}
        named = {name_of(side, k): flat for side, models in sides.items() for k, flat in enumerate(models)}
        return named | {name_of(method, _AUDITED): flat for method, flat in self.audited.items()}


@dataclass(frozen=True)
class OwnAttacks:
    """Has the clients that hold forgotten examples attack these by themselves.

    Parameters
    ----------
    holders
        Client -> how many examples of its own are to be forgotten.
    earlier
        Served by the model's path before.
    seed
        Draws permutations and bootstraps.
    tests
        How many attacks share the level of the verdict; see `Baselines`.
    name
        Of this attack, unlike any other's.
    """

    request: ForgetRequest
    layout: wire.Layout
    holders: Mapping[str, int]
    earlier: Sequence[ForgetRequest] = ()
    seed: int = 0
    tests: int = 1
    name: str = field(default_factory=lambda: secrets.token_hex(8))

    def carry_out(self, models: AttackModels, cohort: Cohort) -> dict[str, dict[str, ShadowFindings]]:
        """Return what each client finds of each method.

        A client that does not answer, or gives an answer that no attack could have given, is recorded as a
        fault, and is missing.
        """
        seeing = list(self.holders)
        for shown in self._messages(models.by_name()):
            records = {name: wire.FlatRecord(flat, self.layout) for name, flat in shown.items()}
            replies = cohort.ask(
                wire.AUDIT, self.questions({}, records), seeing, "models shown for an attack"
            )
            answered = {reply.client_id for reply in replies}
            seeing = [client_id for client_id in seeing if client_id in answered]
        pairs, methods = len(models.before), list(models.unlearned)
        return {
            method: self._found(cohort, seeing, method, pairs, last=method == methods[-1])
            for method in methods
        }

    def questions(
        self, config: Mapping[str, int | str], records: Mapping[str, ArrayRecord]
    ) -> Callable[[str], RecordDict]:
        """Return what makes a client's question; clients with the same one share its records."""
        made: dict[ForgetSpec, RecordDict] = {}

        def question(client_id: str) -> RecordDict:
            spec = self.spec(client_id)
            if spec not in made:
                entries = spec.to_config()
                entries.update({ATTACK: self.name, **config})
                made[spec] = RecordDict({**records, wire.CONFIG: entries})
            return made[spec]

        return question

    def spec(self, client_id: str) -> ForgetSpec:
        """Return which of a client's examples are to be forgotten, and which were earlier."""
        return spec_for(self.request, client_id, self.earlier)

    def _messages(self, models: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yield the models of each message."""
        names, each = list(models), max(1, MESSAGE_BYTES // max(_ENTRY_BYTES * self.layout.size, 1))
        for start in range(0, len(names), each):
            yield {name: models[name] for name in names[start : start + each]}

    def _found(
        self, cohort: Cohort, clients: Sequence[str], method: str, pairs: int, *, last: bool
    ) -> dict[str, ShadowFindings]:
        tests, found, scope = min(self.tests, _MOST_TESTS), {}, f"attack on {method}"
        told: dict[str, int | str] = {METHOD: method, PAIRS: pairs, SEED: self.seed, TESTS: tests, LAST: last}
        for reply in cohort.ask(wire.AUDIT, self.questions(told, {}), clients, scope):
            client_id, config = reply.client_id, reply.message.content.config_records.get(wire.CONFIG)
            try:
                text: Any = None if config is None else config.get(FINDINGS)
                own = read_findings(text, pairs, self.holders[client_id], tests)
            except ValueError as error:
                cohort.add_fault(client_id, scope, str(error))
                continue
            if own is not None:
                found[client_id] = replace(own, clients=(client_id,))
        return {client_id: found[client_id] for client_id in clients if client_id in found}
