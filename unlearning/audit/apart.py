"""UA, MIA and ASR of the forgotten data, on poisoned or hard examples and on clean ones apart.

For a poisoned client UA and MIA are the backdoor again: a model without it gets the poisoned examples wrong.
What the method did to the client's clean examples shows only apart from them. Who knows which is which is the
client, and only because the run config stages it: of real data nobody can say.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from unlearning.audit import metrics
from unlearning.audit.evidence import AuditAnswer

POISONED, HARD, CLEAN = "poisoned", "hard", "clean"
"""What an example is: altered by a staged attack, made hard at an honest client, or neither."""

Attack = Callable[[Tensor], float | None]
"""Gives MIA-efficacy from the margins of some forgotten examples; None where it was not measured."""


@dataclass(frozen=True)
class Part:
    """What was measured on one kind of the forgotten examples, in percent; None where it was not.

    Attributes
    ----------
    unlearning_accuracy, mia_efficacy : float or None
        UA and MIA on these examples; the attacker is that of all.
    attack_success_rate : float or None
        With poisoned examples: share of the test images not of the target class that go to the target, with
        the trigger (``poisoned``) and without (``clean``).
    num_forget : int
        How many examples there are.
    """

    unlearning_accuracy: float | None
    mia_efficacy: float | None
    attack_success_rate: float | None
    num_forget: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a mapping that `json` can write."""
        return asdict(self)


def parts(
    answers: Mapping[str, AuditAnswer],
    staged: Mapping[str, str],
    attack: Attack,
    success: Mapping[str, float | None],
) -> dict[str, Part]:
    """Return what was measured on each kind of the forgotten examples; empty if all are of one kind.

    Parameters
    ----------
    answers
        What clients said of a model, by client-id.
    staged
        ``poisoned`` or ``hard`` by client-id; what other clients say of themselves is not read.
    attack
        The membership attack.
    success
        Success rate of the backdoor by kind, where there is an attack.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for client_id, answer in answers.items():
        for kind, chosen in _kinds(answer, staged.get(client_id)):
            if answer.margin is not None and bool(chosen.any()):
                found.setdefault(kind, []).append((answer.correct[chosen], answer.margin[chosen]))
    if not found.keys() - {CLEAN}:
        return {}
    return {
        kind: _part(found[kind], attack, success.get(kind))
        for kind in (POISONED, HARD, CLEAN)
        if kind in found
    }


def _kinds(answer: AuditAnswer, kind: str | None) -> Iterator[tuple[str, Tensor]]:
    """Yield kinds of a client's forgotten examples, and which they are; nothing where they are not known."""
    if kind is None:
        yield CLEAN, answer.forget
    elif answer.altered is not None:
        yield kind, answer.forget & answer.altered
        yield CLEAN, answer.forget & ~answer.altered


def _part(found: list[tuple[Tensor, Tensor]], attack: Attack, success: float | None) -> Part:
    correct, margin = torch.cat([c for c, _ in found]), torch.cat([m for _, m in found])
    return Part(metrics.unlearning_accuracy(correct), attack(margin), success, len(correct))
