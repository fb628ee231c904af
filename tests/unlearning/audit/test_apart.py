"""unlearning/audit/apart.py: UA, MIA and ASR on poisoned or hard and on clean examples apart."""

import re
from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from tests.unlearning.audit_world import DATA, SURE, Answer, CohortStandIn, images, trained_run, weights
from unlearning.audit.apart import parts
from unlearning.audit.evidence import AuditAnswer
from unlearning.audit.measurement import Measurement, measure
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings

MARKS = {"1": torch.tensor([True, True, False])}
FORGET_1 = ForgetRequest(clients=("1",))


def measured(cohort: CohortStandIn, staged: dict[str, str]) -> Measurement:
    """Measure w = ln 3, which predicts class 1 at x = 1 and class 0 at x = −1; the trigger tells nothing."""
    run = replace(trained_run(), staged=staged)
    return measure(run, weights(SURE), FORGET_1, cohort.cohort, AuditSettings())


def federation(**changes: object) -> CohortStandIn:
    """Return client 1 with two marked examples, of which one is right, and a clean one, which is right."""
    data = {**DATA, "1": images((1, 0), (1, 1), (-1, 0))}
    return CohortStandIn(data=data, altered=MARKS, **changes)  # type: ignore[arg-type]


def test_figures_by_hand() -> None:
    """Of two poisoned one is wrong: UA 50; the clean one is right: UA 0.

    ASR is over the test images not of class 1, which is (−1, 0): class 0 with the trigger, as t = 0, and
    without; of w = ln 3 none goes to the target.
    """
    found = measured(federation(), {"1": "poisoned"})
    poisoned, clean = found.apart["poisoned"], found.apart["clean"]
    assert (poisoned.unlearning_accuracy, poisoned.num_forget) == (50.0, 2)
    assert (clean.unlearning_accuracy, clean.num_forget) == (0.0, 1)
    assert (poisoned.attack_success_rate, clean.attack_success_rate) == (0.0, 0.0)
    assert found.unlearning_accuracy == pytest.approx(100 / 3)
    assert found.to_json()["apart"]["poisoned"]["unlearning_accuracy"] == 50.0


def test_the_two_kinds_together_are_all_forgotten_examples() -> None:
    """The attacker is the same, so that means over the kinds are the figures of all."""
    found = measured(federation(), {"1": "hard"})
    kinds = found.apart.values()
    assert list(found.apart) == ["hard", "clean"]
    total = sum(part.num_forget for part in kinds)
    assert total == found.num_forget
    for figure in ("unlearning_accuracy", "mia_efficacy"):
        whole = sum(part.num_forget * getattr(part, figure) for part in kinds) / total
        assert whole == pytest.approx(getattr(found, figure))
    assert found.apart["hard"].attack_success_rate is None


def test_nothing_is_apart_where_the_run_stages_nobody_or_sums_are_sent() -> None:
    """What a client says of itself that the config does not name is not read."""
    assert measured(federation(), {}).apart == {}
    assert measured(federation(), {"0": "poisoned"}).apart == {}
    assert measured(federation(summing=("1",)), {"1": "poisoned"}).apart == {}


def test_the_clean_examples_of_other_forgotten_clients_count_as_clean() -> None:
    answers = {
        "1": AuditAnswer(*_vectors(2), altered=torch.tensor([True, False])),
        "2": AuditAnswer(*_vectors(3)),
    }
    found = parts(answers, {"1": "poisoned"}, lambda margins: float(len(margins)), {})
    assert {kind: part.num_forget for kind, part in found.items()} == {"poisoned": 1, "clean": 4}
    assert found["clean"].mia_efficacy == 4.0


def _vectors(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(count), torch.ones(count), torch.ones(count, dtype=torch.bool)


@pytest.mark.parametrize(
    ("marks", "said"),
    [(torch.tensor([2, 0, 0]), "'altered' holds 2"), (torch.tensor([1]), r"expected uint8 \(3,\)")],
)
def test_marks_that_are_none_are_a_fault_of_the_client(marks: Tensor, said: str) -> None:
    def tampered(answer: Answer) -> Answer:
        numbers, arrays = answer
        return numbers, ArrayRecord({**arrays, "altered": Array(marks.to(torch.uint8).numpy())})

    cohort = federation(tampered={"1": tampered})
    found = measured(cohort, {"1": "poisoned"})
    assert found.num_forget == 0
    assert re.search(said, found.missing["1"])
