"""Ask every client about a model, and pool what they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from flwr.app import RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.server.cohort import Cohort
from strategies.task import CLASSIFICATION, Task
from unlearning.audit import held_out, metrics
from unlearning.audit.evidence import AuditAnswer, decode_answer
from unlearning.forget_spec import ForgetSpec, spec_for
from unlearning.request import ForgetRequest


@dataclass(frozen=True, eq=False)
class Evidence:
    """All clients' answers about one model.

    `answers` are by client-id, in the order of `client_sort_key`, whatever order they arrived in; `missing`
    says why each other client is not among them.
    """

    answers: Mapping[str, AuditAnswer]
    missing: Mapping[str, str]

    @cached_property
    def margin(self) -> tuple[Tensor, Tensor]:
        """How well the model knows each example of D_f and of D_r; without clients that sent sums only."""
        pairs = [(a.margin, a.forget) for a in self.answers.values()]
        known = [(margin, forget) for margin, forget in pairs if margin is not None]
        return self._pooled([m for m, _ in known], [forget for _, forget in known])

    @property
    def sums_only(self) -> tuple[str, ...]:
        """Clients that sent sums in place of numbers per example."""
        return tuple(i for i, answer in self.answers.items() if answer.margin is None)

    @cached_property
    def correct(self) -> tuple[Tensor, Tensor]:
        """How far the outputs are right, from 0 to 1, shapes [|D_f|] and [|D_r|]."""
        answers = self.answers.values()
        return self._pooled([a.correct for a in answers], [a.forget for a in answers])

    @property
    def tested(self) -> held_out.HeldOutAnswer:
        """What the clients say of their own test data, together."""
        return held_out.pooled([a.tested for a in self.answers.values() if a.tested is not None])

    @property
    def client_accuracy(self) -> dict[str, float]:
        """Accuracy, or mean score, in percent of each client that keeps examples, on what it keeps."""
        kept = {i: a.correct[~a.forget] for i, a in self.answers.items()}
        return {i: metrics.accuracy(correct) for i, correct in kept.items() if len(correct)}

    @property
    def divergence(self) -> tuple[float | None, float | None]:
        """Mean KL to the reference on D_f and on D_r, nats; None without a reference or without examples."""
        sums = [a.divergence for a in self.answers.values() if a.divergence is not None]
        num_forget, num_retain = (len(part) for part in self.correct)
        return (
            sum(s.forget for s in sums) / num_forget if sums and num_forget else None,
            sum(s.retain for s in sums) / num_retain if sums and num_retain else None,
        )

    @staticmethod
    def _pooled(vectors: list[Tensor], marks: list[Tensor]) -> tuple[Tensor, Tensor]:
        if not vectors:
            return torch.zeros(0), torch.zeros(0)
        forget, pooled = torch.cat(marks), torch.cat(vectors)
        return pooled[forget], pooled[~forget]


class AuditQuestions(Protocol):
    """Makes each client's question, and reads the answer."""

    request: ForgetRequest
    earlier: Sequence[ForgetRequest]

    def __call__(self, client_id: str) -> RecordDict:
        """Return the content of a client's message."""

    def read(self, client_id: str, content: RecordDict, num_examples: int | None) -> AuditAnswer:
        """Decode a client's answer; ValueError if it could not have come from any model."""


def gather(cohort: Cohort, questions: AuditQuestions, scope: str = "audit") -> Evidence:
    """Ask every client about a model; those that were forgotten earlier are not asked.

    An answer that could not have come from any model is recorded as a fault of its client, as no answer is.
    The cohort holds all clients, the forgotten ones included, as only they hold D_f; `scope` names the
    exchange in the list of faults.
    """
    forgotten = {client_id for each in questions.earlier for client_id in each.clients}
    cohort = cohort.without(forgotten) if forgotten else cohort
    clients = cohort.clients
    known_faults = len(cohort.faults)
    answers: dict[str, AuditAnswer] = {}
    for reply in cohort.ask(wire.AUDIT, questions, scope=scope):
        client_id = reply.client_id
        try:
            answers[client_id] = questions.read(
                client_id, reply.message.content, clients[client_id].known_examples
            )
        except ValueError as error:
            cohort.add_fault(client_id, scope, str(error))
    reasons = {fault.client_id: fault.reason for fault in cohort.faults[known_faults:]}
    missing = {i: reasons.get(i, "no answer") for i in clients if i not in answers}
    missing.update({i: "not connected" for i in questions.request.named_clients if i not in clients})
    return Evidence({i: answers[i] for i in clients if i in answers}, missing)


class Questions:
    """Makes each client's question about one model; clients with the same question share one record.

    Parameters
    ----------
    request, earlier
        What is, or was, to be forgotten, and what was forgotten earlier, which counts neither way.
    layout
        Names and shapes of the model's entries.
    flat, reference
        The parameters of the model and, or None, of the retrained one, shape [layout.size].
    most_tested
        How many test examples of its own each client can have, by client-id, where the server has none and
        asks for theirs; None: it does not ask.
    """

    def __init__(
        self,
        request: ForgetRequest,
        layout: wire.Layout,
        flat: Tensor,
        reference: Tensor | None = None,
        earlier: Sequence[ForgetRequest] = (),
        task: Task = CLASSIFICATION,
        most_tested: Mapping[str, int] | None = None,
    ) -> None:
        self.request = request
        self._task = task
        self.earlier = earlier
        self._records = {wire.ARRAYS: wire.FlatRecord(flat, layout)}
        if reference is not None:
            self._records[wire.REFERENCE] = wire.FlatRecord(reference, layout)
        self._most_tested = most_tested
        self._made: dict[ForgetSpec, RecordDict] = {}

    def __call__(self, client_id: str) -> RecordDict:
        """Return the content of a client's message."""
        spec = spec_for(self.request, client_id, self.earlier)
        if spec not in self._made:
            config = spec.to_config()
            if self._most_tested is not None:
                config[held_out.WANTED] = True
            self._made[spec] = RecordDict({**self._records, wire.CONFIG: config})
        return self._made[spec]

    def read(self, client_id: str, content: RecordDict, num_examples: int | None) -> AuditAnswer:
        """Decode a client's answer; see `decode_answer`."""
        spec = spec_for(self.request, client_id, self.earlier)
        most = (self._most_tested or {}).get(client_id, 0)
        return decode_answer(content, spec, num_examples, wire.REFERENCE in self._records, self._task, most)
