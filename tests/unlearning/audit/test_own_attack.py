"""The attack by a client itself finds what the server would, tells nothing of one example, and is checked."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from torch import nn

from strategies.core import wire
from strategies.core.examples import TensorExamples
from unlearning.audit.likelihood_ratio import LikelihoodRatios
from unlearning.audit.margins import Margins
from unlearning.audit.own_attack import (
    FINDINGS,
    LAST,
    METHOD,
    PAIRS as PAIRS_KEY,
    SEED,
    SHOWN,
    STATE,
    TESTS,
    AttackModels,
    OwnAttacks,
    answer_attack,
    is_wanted,
    read_findings,
)
from unlearning.audit.shadow_attack import Baselines, ShadowFindings, ShadowPair, combined, findings
from unlearning.request import ForgetRequest

PAIRS, COUNT = 12, 9
GONE = (0, 2, 5)
LAYOUT = wire.Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})


def examples() -> TensorExamples:
    generator = torch.Generator().manual_seed(0)
    return TensorExamples(torch.randn(COUNT, 3, generator=generator), torch.arange(COUNT) % 2)


def vectors(scope: int, pull: float) -> torch.Tensor:
    """Return a linear classifier's parameters; `pull` moves its first bias."""
    flat = torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(scope))
    return flat + torch.tensor([0.0] * 6 + [pull, 0.0])


def attack_models(pull: float) -> AttackModels:
    before, left, retrained = (
        [vectors(k + scope, p) for k in range(PAIRS)] for scope, p in ((0, 2.0), (0, pull), (100, 0.0))
    )
    return AttackModels(before, retrained, {"m": left}, {"m": vectors(7, pull)})


def loaded(record: ArrayRecord) -> nn.Module:
    model = nn.Linear(3, 2)
    model.load_state_dict({name: torch.tensor(entry.numpy()) for name, entry in record.items()})
    return model


def slow_margins(flat: torch.Tensor) -> Margins:
    """Return log p − log(1 − p) of each example, one at a time."""
    values = LAYOUT.unflatten(flat)
    data, found = examples(), []
    for x, y in zip(data.x, data.y, strict=True):
        p = torch.softmax((values["weight"].double() @ x.double()) + values["bias"].double(), 0)[y]
        found.append(float(torch.log(p) - torch.log(1 - p)))
    margins = np.array(found)
    gone = np.isin(np.arange(COUNT), GONE)
    return Margins({"4": margins[gone]}, margins[~gone], np.zeros(0), {"4": np.flatnonzero(gone)})


REQUEST = ForgetRequest(samples={"4": GONE})


def told(request: ForgetRequest, content: RecordDict, state: RecordDict) -> dict[str, int | str]:
    """Return the entries of a client's reply."""
    assert is_wanted(content)
    spec = OwnAttacks(request, LAYOUT, {}).spec("4")
    return answer_attack(content, examples(), loaded, spec, state)


def shown(state: RecordDict, pull: float = 1.0, request: ForgetRequest = REQUEST, name: str = "a") -> None:
    """Show a client the models of an attack, five in each message."""
    attacks = OwnAttacks(request, LAYOUT, {"4": 3}, name=name)
    models = list(attack_models(pull).by_name().items())
    for start in range(0, len(models), 5):
        part = {key: wire.FlatRecord(flat, LAYOUT) for key, flat in models[start : start + 5]}
        assert told(request, attacks.questions({}, part)("4"), state) == {SHOWN: len(part)}


def question(tests: int = 1, request: ForgetRequest = REQUEST, name: str = "a", **config: int) -> RecordDict:
    entries = {METHOD: "m", PAIRS_KEY: PAIRS, SEED: 3, TESTS: tests, LAST: False, **config}
    return OwnAttacks(request, LAYOUT, {"4": 3}, name=name).questions(entries, {})("4")


def answered(pull: float = 1.0, request: ForgetRequest = REQUEST, tests: int = 1) -> str:
    state = RecordDict()
    shown(state, pull, request)
    found = told(request, question(tests, request), state)[FINDINGS]
    assert isinstance(found, str)
    return found


def test_a_client_finds_what_a_server_would_that_is_told_all_margins() -> None:
    own, models = read_findings(answered(), PAIRS, len(GONE)), attack_models(1.0)
    expected = findings(
        [
            ShadowPair(*map(slow_margins, pair))
            for pair in zip(models.before, models.unlearned["m"], models.retrained, strict=True)
        ],
        slow_margins(vectors(7, 1.0)),
        Baselines(3),
    )
    assert own is not None
    assert expected is not None
    assert own.outcome == expected.outcome
    for name in ("forgotten", "nothing", "retraining", "retained"):
        ours, theirs = getattr(own, name), getattr(expected, name)
        assert (ours.pairs, ours.examples, ours.p_value) == (theirs.pairs, theirs.examples, theirs.p_value)
        assert ours.area.value == pytest.approx(theirs.area.value, abs=1e-6)
    assert own.unseen is None


def test_of_many_clients_each_makes_so_many_swaps_that_their_share_of_the_level_can_be_reached() -> None:
    """12 pairs have 2,048 different swaps; 999 are drawn for one test, and all are made for three."""
    alone, shared = (read_findings(answered(tests=tests), PAIRS, len(GONE), tests) for tests in (1, 3))
    assert alone is not None
    assert shared is not None
    assert alone.forgotten.least_p_value == 1 / 1000
    assert shared.forgotten.least_p_value == 1 / 2048
    with pytest.raises(ValueError, match="'shadow-tests' is 0, expected 1 to 1000"):
        answered(tests=0)


def test_what_a_client_knows_of_models_is_dropped_after_the_last_question_or_by_another_attack() -> None:
    state = RecordDict()
    shown(state, name="broken-off")
    shown(state, name="a")
    assert list(state) == [f"{STATE}/a"]
    first = told(REQUEST, question(), state)
    assert told(REQUEST, question(**{LAST: True}), state) == first
    assert not state


def test_an_attack_by_models_that_a_client_was_not_shown_is_refused() -> None:
    state = RecordDict()
    shown(state)
    with pytest.raises(ValueError, match=r"was not shown the model 'before/12' of this attack"):
        told(REQUEST, question(**{PAIRS_KEY: PAIRS + 1}), state)
    with pytest.raises(ValueError, match=r"was not shown the model 'before/0' of this attack"):
        told(REQUEST, question(name="other"), state)


def test_examples_that_changed_while_models_were_shown_are_refused() -> None:
    state, spec = RecordDict(), OwnAttacks(REQUEST, LAYOUT, {}).spec("4")
    shown(state)
    fewer = TensorExamples(examples().x[:8], examples().y[:8])
    with pytest.raises(ValueError, match="the client has 8 examples, but had 9 as it saw 'before/0'"):
        answer_attack(question(), fewer, loaded, spec, state)


def test_nothing_of_one_example_is_in_the_answer() -> None:
    """It holds no list at all, and so no number for each example."""
    told = json.loads(answered())
    assert told["most_exposed"] == []
    assert [told[name]["most_exposed"] for name in ("forgotten", "nothing", "retained")] == [[], [], []]

    def longest(value: Any) -> int:
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        own = len(value) if isinstance(value, list) else 0
        return max([own, *map(longest, inner)])

    assert longest(told) == 0


def test_a_client_without_a_forgotten_example_says_that_it_has_none() -> None:
    assert answered(request=ForgetRequest(classes=(5,))) == ""
    assert read_findings("", PAIRS, 0) is None
    with pytest.raises(ValueError, match="is not what the attack finds"):
        read_findings("", PAIRS, len(GONE))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"forgotten": {"area": {"value": 1.5, "low": 0.4, "high": 0.6}}}, "shares that are none"),
        ({"forgotten": {"p_value": 0.0}}, "shares that are none"),
        ({"nothing": {"accuracy": {"value": -0.1, "low": 0.0, "high": 0.6}}}, "shares that are none"),
        ({"audited": 2.0}, "shares that are none"),
        ({"forgotten": {"area": {"value": 0.5, "low": 0.6, "high": 0.4}}}, "shares that are none"),
        ({"forgotten": {"p_value": 1e-9}}, "shares that are none"),
        ({"forgotten": {"least_p_value": 1.0, "p_value": 1.0}}, "shares that are none"),
        ({"nothing": {"rates": {}}}, "shares that are none"),
        ({"forgotten": {"least_p_value": 1e-9}}, "of another test than 12 pairs of models allow"),
        ({"nothing": {"examples": 2}}, "of 2 examples, the request names 3"),
        ({"divergences": {"mine": None}}, "divergences that are none"),
        ({"divergences": {"forget": {"unlearned": {}}}}, "is not what the attack finds"),
        (
            {"divergences": {"forget": {"models": 6, "examples": 3, "unlearned": {"95": 1}, "floor": {}}}},
            "divergences that are none",
        ),
        ({"forgotten": {"pairs": 99}}, "of other models than the 12 pairs"),
        ({"dropped": 3}, "of other models than the 12 pairs"),
        ({"forgotten": {"examples": 2}}, "of 2 examples, the request names 3"),
        ({"forgotten": {"area": "all"}}, "is not what the attack finds"),
        ({"outcome": "splendid"}, "is not what the attack finds"),
    ],
)
def test_an_answer_that_no_attack_could_give_is_refused(change: Mapping[str, Any], said: str) -> None:
    told = json.loads(answered())
    for key, value in change.items():
        told[key] = {**told[key], **value} if isinstance(value, Mapping) else value
    with pytest.raises(ValueError, match=said):
        read_findings(json.dumps(told), PAIRS, len(GONE))


@pytest.mark.parametrize("text", [None, 7, "x" * 70_000, "{}", "no json"])
def test_what_is_no_finding_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=FINDINGS):
        read_findings(text, PAIRS, 3)


def test_a_clients_own_words_and_verdict_count_for_nothing() -> None:
    told = json.loads(answered(pull=8.0))
    honest = read_findings(json.dumps(told), PAIRS, len(GONE))
    lied = {**told, "outcome": "passes", "text": "passes: <script>", "most_exposed": [], "by_client": {}}
    found = read_findings(json.dumps(lied), PAIRS, len(GONE))
    assert found == honest
    assert found is not None
    assert found.outcome == "fails"


def of(outcome: str, p_value: float, area: float) -> ShadowFindings:
    """Return findings with 16 pairs; doing nothing is told in any case."""
    base = read_findings(answered(), PAIRS, len(GONE))
    assert base is not None

    def ratios(p: float, value: float) -> LikelihoodRatios:
        area = replace(base.forgotten.area, value=value, low=value - 0.02, high=value + 0.02)
        return replace(base.forgotten, pairs=16, area=area, p_value=p, least_p_value=0.001)

    found = replace(base, forgotten=ratios(p_value, area), nothing=ratios(0.001, 0.9))
    assert combined({"0": found}).outcome == outcome  # type: ignore[union-attr]
    return found


def test_findings_of_several_clients_together() -> None:
    """The level of 1 % is shared: what one client alone would fail by, one of three does not."""
    good, better, bad, doubtful = (
        of("passes", 0.4, 0.53),
        of("passes", 0.9, 0.51),
        of("fails", 0.002, 0.8),
        of("fails", 0.008, 0.7),
    )
    assert combined({}) is None
    passed, failed, open_ = (
        combined({"0": better, "1": good}),
        combined({"0": good, "1": bad, "2": better}),
        combined({"0": good, "1": doubtful, "2": better}),
    )
    assert passed is not None
    assert failed is not None
    assert open_ is not None
    assert (passed.outcome, passed.forgotten) == ("passes", good.forgotten)
    assert (failed.outcome, failed.forgotten) == ("fails", bad.forgotten)
    assert {name: each.outcome for name, each in failed.by_client.items()} == {
        "0": "passes",
        "1": "fails",
        "2": "passes",
    }
    assert (open_.outcome, open_.forgotten) == ("undecided", doubtful.forgotten)
    assert "(client 1, whose examples are told best of 3 attacked by themselves)" in failed.text
