"""unlearning/audit/gathering.py: every client is asked, in any order, and whoever is missing is named."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict

from strategies.server.cohort import Reply
from tests.counting import CountedText, check_growth
from tests.unlearning.audit_world import DATA, LAYOUT, SURE, Answer, CohortStandIn, weights
from unlearning.audit.evidence import AuditAnswer
from unlearning.audit.gathering import Evidence, Questions, gather
from unlearning.forget_spec import spec_for
from unlearning.request import ForgetRequest

FORGET_1 = ForgetRequest(clients=("1",))


def evidence_of(
    stand_in: CohortStandIn, request: ForgetRequest = FORGET_1, reference: float | None = None
) -> Evidence:
    flat = None if reference is None else weights(reference)
    return gather(stand_in.cohort, Questions(request, LAYOUT, weights(SURE), flat))


# by hand


def test_pooling_by_hand() -> None:
    """w = ln 3 gives 3/4 to the labels (x, y) = (1, 1), (−1, 0), which it predicts, and 1/4 to the others.

    D_f is client 1 (wrong); D_r is client 0 (right, right) and client 10 (right, wrong, wrong).
    """
    evidence = evidence_of(CohortStandIn(DATA))
    forgotten, retained = evidence.margin
    assert forgotten.tolist() == pytest.approx([-SURE])
    assert retained.tolist() == pytest.approx([SURE, SURE, SURE, -SURE, -SURE])
    assert evidence.correct[1].tolist() == [True, True, True, False, False]
    assert evidence.client_accuracy == {"0": 100.0, "10": pytest.approx(100 / 3)}
    assert evidence.missing == {}


def test_divergence_is_a_mean_over_examples_not_over_clients() -> None:
    """Against w = 0 each example has ½·ln(4/3) (see test_evidence), so that each mean has, too."""
    expected = pytest.approx(0.5 * math.log(4 / 3))
    assert evidence_of(CohortStandIn(DATA), reference=0.0).divergence == (expected, expected)
    assert evidence_of(CohortStandIn(DATA)).divergence == (None, None)


def test_a_class_request_splits_every_client() -> None:
    evidence = evidence_of(CohortStandIn(DATA), ForgetRequest(classes=(1,)))
    assert {i: a.forget.tolist() for i, a in evidence.answers.items()} == {
        "0": [True, False],
        "1": [False],
        "10": [True, False, True],
    }


def test_a_sample_request_splits_the_clients_it_names() -> None:
    evidence = evidence_of(CohortStandIn(DATA), ForgetRequest(samples={"10": (0, 2)}))
    assert {i: int(a.forget.sum()) for i, a in evidence.answers.items()} == {"0": 0, "1": 0, "10": 2}


def test_what_was_forgotten_before_counts_neither_way() -> None:
    """Class 1 of everyone, or client 10; D_f is client 1's (1, 0), the rest of client 0 is (−1, 0)."""

    def counts(*earlier: ForgetRequest) -> tuple[dict[str, tuple[int, int]], list[str]]:
        stand_in = CohortStandIn(DATA)
        questions = Questions(FORGET_1, LAYOUT, weights(SURE), weights(0.0), earlier)
        answers = gather(stand_in.cohort, questions).answers
        found = {i: (int(a.forget.sum()), int((~a.forget).sum())) for i, a in answers.items()}
        return found, sorted(stand_in.questions)

    everyone = ["0", "1", "10"]
    assert counts() == ({"0": (0, 2), "1": (1, 0), "10": (0, 3)}, everyone)
    assert counts(ForgetRequest(classes=(1,))) == ({"0": (0, 1), "1": (1, 0), "10": (0, 1)}, everyone)
    assert counts(ForgetRequest(samples={"0": (0, 1)})) == (
        {"0": (0, 0), "1": (1, 0), "10": (0, 3)},
        everyone,
    )
    assert counts(ForgetRequest(clients=("10",))) == ({"0": (0, 2), "1": (1, 0)}, ["0", "1"])


# properties


@pytest.mark.parametrize("order", list(permutations(DATA)))
def test_the_order_of_answers_is_irrelevant(order: tuple[str, ...]) -> None:
    expected, got = (evidence_of(CohortStandIn({i: DATA[i] for i in ids})) for ids in (DATA, order))
    assert list(got.answers) == ["0", "1", "10"]
    assert torch.equal(got.margin[1], expected.margin[1])


def test_clients_that_are_asked_the_same_share_one_message() -> None:
    stand_in = CohortStandIn(DATA)
    evidence_of(stand_in, reference=0.0)
    assert stand_in.questions["0"] is stand_in.questions["10"]
    assert stand_in.questions["0"] is not stand_in.questions["1"]
    assert stand_in.questions["1"]["config"]["forget-all"] is True


# who is missing


def test_a_silent_client_is_named_with_its_reason() -> None:
    evidence = evidence_of(CohortStandIn(DATA, silent={"10": "no answer in 5 s"}))
    assert evidence.missing == {"10": "no answer in 5 s"}
    assert len(evidence.correct[1]) == 2


def test_a_forgotten_client_that_is_not_connected_is_named() -> None:
    evidence = evidence_of(CohortStandIn({i: DATA[i] for i in ("0", "10")}))
    assert evidence.missing == {"1": "not connected"}
    assert len(evidence.correct[0]) == 0


def test_older_faults_of_a_client_are_not_its_reason() -> None:
    stand_in = CohortStandIn(DATA, silent={"10": "gone"})
    stand_in.add_fault("10", "round 3", "late")
    assert evidence_of(stand_in).missing == {"10": "gone"}


def test_nobody_answers() -> None:
    evidence = evidence_of(CohortStandIn(DATA, silent=dict.fromkeys(DATA, "gone")))
    assert [len(part) for part in (*evidence.correct, *evidence.margin)] == [0, 0, 0, 0]
    assert evidence.client_accuracy == {}
    assert set(evidence.missing) == set(DATA)


# damage is noticed


def test_a_damaged_answer_counts_as_none_and_is_a_fault() -> None:
    def exaggerate(answer: Answer) -> Answer:
        numbers, arrays = answer
        arrays["margin"] = Array(np.inf * arrays["margin"].numpy())
        return numbers, arrays

    stand_in = CohortStandIn(DATA, tampered={"0": exaggerate})
    evidence = evidence_of(stand_in)
    assert list(evidence.answers) == ["1", "10"]
    assert "not finite" in evidence.missing["0"]
    assert [fault.client_id for fault in stand_in.faults] == ["0"]


def test_an_answer_over_fewer_examples_than_the_client_holds_is_noticed() -> None:
    def shorten(answer: Answer) -> Answer:
        numbers, arrays = answer
        return numbers, ArrayRecord({name: Array(array.numpy()[:1]) for name, array in arrays.items()})

    evidence = evidence_of(CohortStandIn(DATA, tampered={"10": shorten}))
    assert list(evidence.answers) == ["0", "1"]
    assert "expected float32 (3,)" in evidence.missing["10"]


# growth


class AllTheSame(CohortStandIn):
    """Answers at once, without a model."""

    def ask(self, message_type: str, content: Callable[[str], RecordDict], scope: str) -> Iterator[Reply]:
        for client_id in self.data:
            content(client_id)
            yield Reply(client_id, cast(Message, SimpleNamespace(content=RecordDict())))


@dataclass
class Told:
    """Questions of a request; every answer is one and the same."""

    request: ForgetRequest
    earlier: tuple[ForgetRequest, ...]
    answer: AuditAnswer

    def __call__(self, client_id: str) -> RecordDict:
        spec_for(self.request, client_id, self.earlier)
        return RecordDict()

    def read(self, client_id: str, content: RecordDict, num_examples: int | None) -> AuditAnswer:
        return self.answer


def test_many_clients_are_asked_and_pooled_as_fast_each_as_a_few() -> None:
    """Half of them are to be forgotten, and of each an example was before: operations are counted."""
    answer = AuditAnswer(torch.zeros(2), torch.ones(2), torch.tensor([True, False]))

    def prepare(clients: int) -> Callable[[], object]:
        data = dict.fromkeys((CountedText(i) for i in range(clients)), DATA["0"])
        request = ForgetRequest(clients=tuple(list(data)[::2]))
        told = Told(request, (ForgetRequest(samples=dict.fromkeys(data, (0,))),), answer)
        cohort = AllTheSame(data).cohort

        def work() -> object:
            found = gather(cohort, told)
            return found.margin, found.correct, found.client_accuracy, found.divergence, found.sums_only

        return work

    check_growth(prepare)
