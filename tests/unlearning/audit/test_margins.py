"""Margins of single examples: whose they are and where they lie, by hand."""

from dataclasses import replace

import torch

from strategies.client.holdout import held_out
from unlearning.audit.evidence import AuditAnswer
from unlearning.audit.gathering import Evidence
from unlearning.audit.margins import Margins, positions, same_examples


def answer(margin: list[float] | None, forget: list[bool]) -> AuditAnswer:
    values = None if margin is None else torch.tensor(margin)
    return AuditAnswer(values, torch.ones(len(forget)), torch.tensor(forget))


EVIDENCE = Evidence(
    {
        "1": answer([1.0, 2.0, 3.0], [True, False, True]),
        "2": answer([4.0, 5.0], [False, False]),
        "3": answer(None, [True]),
    },
    {},
)


def test_each_margin_is_where_it_belongs() -> None:
    """Client 2 holds nothing of D_f; client 3 sent sums only."""
    found = Margins.of(EVIDENCE, torch.tensor([7.0]))
    assert {i: values.tolist() for i, values in found.forgotten.items()} == {"1": [1.0, 3.0]}
    assert {i: values.tolist() for i, values in found.places.items()} == {"1": [0, 2]}
    assert found.all_forgotten.tolist() == [1.0, 3.0]
    assert (found.retained.tolist(), found.unseen.tolist()) == ([2.0, 4.0, 5.0], [7.0])


def test_held_out_examples_have_positions_but_no_margin() -> None:
    kept = [place for place in range(200) if not held_out(0.2, "7", 200)[place]]
    assert positions(0.2, "7", 100).tolist() == kept[:100]
    assert len(positions(0.9, "7", 500)) == 500
    assert positions(0.0, "7", 0).tolist() == []


def test_models_are_compared_on_the_same_examples_only() -> None:
    found = Margins.of(EVIDENCE, torch.tensor([7.0]))
    assert same_examples([found, found])
    assert not same_examples([found, replace(found, forgotten={})])
    assert not same_examples([found, replace(found, unseen=found.unseen[:0])])


def test_clients_that_hold_equally_much_are_told_apart() -> None:
    """One is silent about each model: the sizes are equal, the examples are not."""
    first, second = (
        Margins.of(
            Evidence({client: answer([1.0, 2.0], [False, False]) for client in answering}, {}),
            torch.tensor([7.0]),
        )
        for answering in (("1", "2"), ("1", "3"))
    )
    assert len(first.retained) == len(second.retained)
    assert not same_examples([first, second])
    assert first.kept == {"1": 2, "2": 2}
