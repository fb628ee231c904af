"""What a client tells the audit about a model: its half of the audit, and how the answer travels.

The server never sees an example of a client. Each client runs the audited model on all of its data, as it
trained on it and un-augmented, and answers with three numbers per example: how well the model knows it (the
margin of the true label), how far the output is right, and whether the example is to be forgotten. With a
second, retrained model it also answers how far the outputs of the two lie apart, summed over its forgotten
and over its retained examples. This still shows the server how sure the model is of each single example. A
client that is not to show that answers with sums alone: how many of its forgotten and of its retained
examples there are, and how far these are right, added up. No membership attack can be made of these. Both
answers are exact, and not private.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION, FULL_SCORE, Task
from unlearning.audit import held_out, metrics
from unlearning.audit.reading import check_correct, check_marks, spread_sum, vector_in
from unlearning.forget_spec import ForgetSpec

MARGIN = "margin"
"""Array, client to server. How well the model knows each example (`Task.confidences`), such as the margin of
its label, shape [n], float32."""
CORRECT = "correct"
"""Array, client to server. How far each output is right, shape [n]: uint8, 1 where the prediction is the
label; of tasks without labels float32, the score over 100."""
FORGET = "forget"
"""Array, client to server. 1 where the example is to be forgotten, shape [n], uint8."""
ALTERED = "altered"
"""Array, client to server, of a client that the run config stages as an attacker or with hard examples. 1
where the example is poisoned, or hard, shape [n], uint8."""
DIVERGENCE_FORGET = "divergence-forget"
"""Metric, client to server, if there is a reference: Σ KL(reference ‖ model) over D_f, nats."""
DIVERGENCE_RETAIN = "divergence-retain"
"""Metric, client to server, if there is a reference: Σ KL(reference ‖ model) over D_r, nats."""

NUM_FORGET = "num-forget"
"""Metric, client to server, in sums: how many of the examples are to be forgotten."""
CORRECT_FORGET, CORRECT_RETAIN = "correct-forget", "correct-retain"
"""Metrics, client to server, in sums: `CORRECT` of the forgotten, and of the retained, added up."""

_DTYPES = {MARGIN: "float32", CORRECT: "uint8", FORGET: "uint8"}


@dataclass(frozen=True)
class Divergence:
    """Σ KL(reference ‖ model) over a client's forgotten and its retained examples, nats."""

    forget: float
    retain: float


@dataclass(frozen=True, eq=False)
class AuditAnswer:
    """One client's answer about one model.

    Attributes
    ----------
    margin : Tensor or None
        How well the model knows each example, shape [n], float32; None if the client sent sums only.
    correct, forget : Tensor
        How far each output is right, from 0 to 1, shape [n], float32, and whether the example is to be
        forgotten, shape [n], bool; in no particular order if the client sent sums only.
    divergence : Divergence or None
        None without a reference model.
    tested : HeldOutAnswer or None
        What it says of its own test data; None if it was not asked, or has none.
    altered : Tensor or None
        Which examples are poisoned or hard, shape [n], bool; None if the client stages neither, or sent sums
        only.
    """

    margin: Tensor | None
    correct: Tensor
    forget: Tensor
    divergence: Divergence | None = None
    tested: held_out.HeldOutAnswer | None = None
    altered: Tensor | None = None


@dataclass(frozen=True, eq=False)
class OwnData:
    """What a client has besides the examples that it trains on.

    Parameters
    ----------
    test
        Returns its own test data, which a server without any asks for; None: it has none.
    altered
        Which of its examples are poisoned or hard, shape [n], bool; None: it does not stage any.
    """

    test: Callable[[], Examples] | None = None
    altered: Tensor | None = None


def answer_audit(
    model: nn.Module,
    examples: Examples,
    spec: ForgetSpec,
    reference_model: nn.Module | None = None,
    batch_size: int = 512,
    task: Task = CLASSIFICATION,
    altered: Tensor | None = None,
) -> AuditAnswer:
    """Run the audited model, and the reference if there is one, on the client's data not forgotten earlier.

    Parameters
    ----------
    model, reference_model
        The audited and the retrained model, on any device; they come back in the mode they were in.
    examples
        All of the client's data, as it trained on it (poisoned, if it was), un-augmented, on the CPU.
    spec
        Which of them are to be forgotten, and which were earlier; BadInput for a position without an example.
    batch_size
        Examples per forward pass.
    altered
        Which of them are poisoned or hard, shape [n], bool; None: the client does not stage any.
    """
    asked = partial(outputs_of, batch_size=batch_size, task=task)
    theirs = None if reference_model is None else partial(asked, reference_model)
    return _answered(partial(asked, model), theirs, examples, spec, task, altered)


def _answered(
    ours: held_out.Outputs,
    theirs: held_out.Outputs | None,
    examples: Examples,
    spec: ForgetSpec,
    task: Task,
    altered: Tensor | None,
) -> AuditAnswer:
    left = spec.unforgotten(examples)
    forget, examples = spec.named(examples)[left], examples.split(left)[0]
    outputs, targets = ours(examples), examples.targets()
    divergence = None
    if theirs is not None:
        each = metrics.output_divergence(outputs, theirs(examples), task)
        divergence = Divergence(float(each[forget].sum()), float(each[~forget].sum()))
    return AuditAnswer(
        margin=task.confidences(outputs, targets),
        correct=task.scores(outputs, targets) / FULL_SCORE,
        forget=forget,
        divergence=divergence,
        altered=None if altered is None else altered[left],
    )


def answer_question(
    question: RecordDict,
    examples: Examples,
    build_model: Callable[[ArrayRecord], nn.Module],
    *,
    spec: ForgetSpec | None = None,
    summed: bool = False,
    own: OwnData = OwnData(),
    task: Task = CLASSIFICATION,
) -> tuple[dict[str, float | int], ArrayRecord]:
    """Answer a message of type `query.audit`; returns the metrics and arrays of the reply.

    Parameters
    ----------
    question
        The message's content: `arrays`, `config` and perhaps `reference`.
    examples
        As in `answer_audit`.
    build_model
        Gives a model of the run's architecture a record's weights, on the device to use; it may be one and
        the same model each time.
    spec
        Which examples are to be forgotten, and which are not asked about; None: as the question says.
    summed
        Whether to send sums in place of numbers per example.
    own
        What the client has besides.
    """
    records = question.array_records

    def outputs(name: str) -> held_out.Outputs:
        return lambda data: outputs_of(build_model(records[name]), data, task=task)

    ours, theirs = outputs(wire.ARRAYS), outputs(wire.REFERENCE) if wire.REFERENCE in records else None
    if spec is None:
        spec = ForgetSpec.from_config(question.config_records.get(wire.CONFIG, ConfigRecord()))
    answer = _answered(ours, theirs, examples, spec, task, own.altered)
    numbers, arrays = (encode_sums(answer), ArrayRecord()) if summed else encode_answer(answer, task)
    if own.test is not None and held_out.is_wanted(question):
        found = held_out.answer_held_out(ours, theirs, own.test(), spec, task)
        further, vectors = ({}, {}) if found is None else held_out.encoded(found, summed=summed)
        numbers, arrays = {**numbers, **further}, ArrayRecord({**arrays, **vectors})
    return numbers, arrays


def encode_sums(answer: AuditAnswer) -> dict[str, float | int]:
    """Return the metrics that carry the sums of an answer."""
    return {
        **_totals(answer),
        NUM_FORGET: int(answer.forget.sum()),
        CORRECT_FORGET: _sum(answer.correct[answer.forget]),
        CORRECT_RETAIN: _sum(answer.correct[~answer.forget]),
    }


def _sum(correct: Tensor) -> float | int:
    """Return the sum, a whole number where each output is right or not."""
    total = float(correct.double().sum())
    return int(total) if total.is_integer() else total


def _totals(answer: AuditAnswer) -> dict[str, float | int]:
    numbers: dict[str, float | int] = {wire.NUM_EXAMPLES: len(answer.forget)}
    if answer.divergence is not None:
        numbers[DIVERGENCE_FORGET] = answer.divergence.forget
        numbers[DIVERGENCE_RETAIN] = answer.divergence.retain
    return numbers


def encode_answer(
    answer: AuditAnswer, task: Task = CLASSIFICATION
) -> tuple[dict[str, float | int], ArrayRecord]:
    """Return the metrics and arrays that carry an answer with numbers per example."""
    assert answer.margin is not None
    vectors = {
        MARGIN: answer.margin,
        CORRECT: encoded_correct(answer.correct, task),
        FORGET: answer.forget.to(torch.uint8),
    }
    if answer.altered is not None:
        vectors[ALTERED] = answer.altered.to(torch.uint8)
    return _totals(answer), ArrayRecord({name: Array(vector.numpy()) for name, vector in vectors.items()})


def encoded_correct(correct: Tensor, task: Task) -> Tensor:
    """Return how far outputs are right, from 0 to 1, as it is sent: with labels, right or not."""
    return correct.to(torch.uint8) if task.labelled else correct


def decode_answer(
    content: RecordDict,
    spec: ForgetSpec,
    num_examples: int | None,
    with_reference: bool,
    task: Task = CLASSIFICATION,
    most_tested: int = 0,
) -> AuditAnswer:
    """Read a client's answer back, and check it.

    Parameters
    ----------
    content
        The reply's content.
    spec
        What the client should forget.
    num_examples
        How many examples the client said it holds; None if it said nothing, and the answer's number counts.
    with_reference
        Whether the client got a reference model.
    task
        With labels, each output is right or not.
    most_tested
        How many test examples of its own the client can have; 0: it was not asked about them.

    Raises
    ------
    ValueError
        If the answer is incomplete, or could not have come from any model.
    """
    record = content.array_records.get(wire.ARRAYS, ArrayRecord())
    numbers = content.metric_records.get(wire.METRICS, MetricRecord())
    size = _size(numbers, spec, num_examples)
    divergence = _divergence(numbers) if with_reference else None
    tested = held_out.decoded(numbers, record, held_out.Bound(most_tested, with_reference))
    if NUM_FORGET in numbers:
        return replace(_from_sums(numbers, spec, size, task), divergence=divergence, tested=tested)
    types = _DTYPES if task.labelled else {**_DTYPES, CORRECT: "float32"}
    margin, correct, forget = (vector_in(record, name, size, dtype) for name, dtype in types.items())
    if not bool(margin.isfinite().all()):
        raise ValueError(f"'{MARGIN}' holds values that are not finite; is the model?")
    check_correct(CORRECT, correct)
    check_marks(FORGET, forget)
    if task.labelled and bool(
        (margin[correct == 0] > 1e-3).any()
    ):  # The likeliest label is the predicted one
        raise ValueError(f"'{CORRECT}' calls a label wrong whose '{MARGIN}' is above 0")
    _check_count(FORGET, int(forget.sum()), spec, size)
    altered = _altered(record, size)
    return AuditAnswer(margin, correct.float(), forget.bool(), divergence, tested, altered)


def _altered(record: ArrayRecord, size: int) -> Tensor | None:
    if ALTERED not in record:
        return None
    marks = vector_in(record, ALTERED, size, "uint8")
    check_marks(ALTERED, marks)
    return marks.bool()


def _check_count(name: str, marked: int, spec: ForgetSpec, size: int) -> None:
    expected = spec.expected_count(size)
    if expected is not None and marked != expected:
        raise ValueError(f"'{name}' marks {marked} examples, the request names {expected}")


def _from_sums(numbers: Mapping[str, Any], spec: ForgetSpec, size: int, task: Task) -> AuditAnswer:
    """Return the answer of a client that sends sums: examples in some order, without margins."""
    forgotten = _count(numbers, NUM_FORGET, size)
    _check_count(NUM_FORGET, forgotten, spec, size)
    right_forget = _spread(numbers, CORRECT_FORGET, forgotten, whole=task.labelled)
    right_retain = _spread(numbers, CORRECT_RETAIN, size - forgotten, whole=task.labelled)
    return AuditAnswer(None, torch.cat([right_forget, right_retain]), torch.arange(size) < forgotten)


def _spread(numbers: Mapping[str, Any], name: str, count: int, *, whole: bool) -> Tensor:
    """Return a sum as numbers from 0 to 1, shape [count], which add up to it; perhaps it must be whole."""
    if whole:
        _count(numbers, name, count)
    return spread_sum(numbers, name, count)


def _count(numbers: Mapping[str, Any], name: str, most: int) -> int:
    value = numbers.get(name)
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"'{name}' is {value}, expected a whole number from 0 to {most}")
    return value


def _size(numbers: Mapping[str, Any], spec: ForgetSpec, num_examples: int | None) -> int:
    """Return the number of examples in an answer; the client's own number counts if only it can know."""
    if num_examples is not None and (expected := spec.expected_size(num_examples)) is not None:
        return expected
    claimed, most = numbers.get(wire.NUM_EXAMPLES), num_examples
    if not isinstance(claimed, int) or claimed < 0 or (most is not None and claimed > most):
        limit = "of at least 0" if most is None else f"from 0 to {most}"
        raise ValueError(f"'{wire.NUM_EXAMPLES}' is {claimed}, expected a number {limit}")
    return claimed


def _divergence(numbers: Mapping[str, Any]) -> Divergence:
    sums: Sequence[Any] = [numbers.get(name) for name in (DIVERGENCE_FORGET, DIVERGENCE_RETAIN)]
    if not all(isinstance(s, float) and 0 <= s < np.inf for s in sums):
        raise ValueError(f"the sums of divergence are {sums}, expected two finite numbers of at least 0")
    return Divergence(*sums)
