"""unlearning/audit/evidence.py: what a client says about a model, and that a damaged answer does not pass."""

import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, strategies as st
from torch import nn

from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.tasks.regression import Regression
from tests.unlearning.audit_world import (
    LAYOUT,
    SURE,
    content_of,
    images,
    loads_into,
    two_weight_model,
    weights,
)
from unlearning.audit.evidence import (
    AuditAnswer,
    answer_audit,
    answer_question,
    decode_answer,
    encode_answer,
    encode_sums,
)
from unlearning.forget_spec import ForgetSpec

EVERYTHING = ForgetSpec(everything=True)


def model(w: float) -> nn.Module:
    built = two_weight_model()
    wire.load_flat(built, weights(w), LAYOUT)
    return built


def answer_with(
    w: float, examples: Examples, spec: ForgetSpec, reference: float | None = None
) -> AuditAnswer:
    return answer_audit(model(w), examples, spec, None if reference is None else model(reference))


# by hand


def test_an_answer_by_hand() -> None:
    """w = ln 3: x = 1 has probability 3/4 of class 1, x = −1 has 1/4.

    So the labels 1, 0 and 1 of x = 1, −1 and −1 have 3/4 (right), 3/4 (right) and 1/4 (wrong): the
    margins are ln(3/4 / 1/4) = ln 3, ln 3 and −ln 3.
    """
    answer = answer_with(SURE, images((1, 1), (-1, 0), (-1, 1)), ForgetSpec(indices=(2,)))
    assert answer.margin.tolist() == pytest.approx([SURE, SURE, -SURE])
    assert answer.correct.tolist() == [True, True, False]
    assert answer.forget.tolist() == [False, False, True]
    assert answer.divergence is None


def test_the_divergence_by_hand() -> None:
    """Reference w = 0 says (1/2, 1/2), the model w = ln 3 says (1/4, 3/4) or, at x = −1, (3/4, 1/4).

    KL(reference ‖ model) = ½·ln(½ / ¼) + ½·ln(½ / ¾) = ½·ln(4/3) per example: one forgotten, two retained.
    """
    answer = answer_with(SURE, images((1, 1), (-1, 0), (-1, 1)), ForgetSpec(indices=(2,)), reference=0.0)
    assert answer.divergence is not None
    assert answer.divergence.forget == pytest.approx(0.5 * math.log(4 / 3))
    assert answer.divergence.retain == pytest.approx(math.log(4 / 3))


def predicting(number: float) -> nn.Module:
    """Return a model that predicts one number, whatever the input."""
    built = nn.Linear(1, 1)
    with torch.no_grad():
        built.weight.zero_()
        built.bias.fill_(number)
    return built


def test_numbers_are_answered_by_scores_and_by_the_size_of_the_residual() -> None:
    """Residuals 1, −2 and −1 at scale 2: scores 75, 0 and 75, and what is known of them −1, −2 and −1."""
    task, examples = Regression(2.0), TensorExamples(torch.zeros(3, 1), torch.tensor([2.0, 5.0, 4.0]))
    spec = ForgetSpec(indices=(0,))
    answer = answer_audit(predicting(3.0), examples, spec, task=task)
    assert answer.margin.tolist() == [-1.0, -2.0, -1.0]
    assert answer.correct.tolist() == [0.75, 0.0, 0.75]
    numbers, arrays = encode_answer(answer, task)
    again = decode_answer(content_of(numbers, arrays), spec, 3, False, task)
    assert again.correct.equal(answer.correct)
    summed = encode_sums(answer)
    assert (summed["correct-forget"], summed["correct-retain"]) == (0.75, 0.75)
    told = decode_answer(content_of(summed, ArrayRecord()), spec, 3, False, task)
    assert [float(told.correct[told.forget].sum()), float(told.correct[~told.forget].sum())] == [0.75, 0.75]


def test_a_score_above_all_is_noticed() -> None:
    task, examples = Regression(2.0), TensorExamples(torch.zeros(1, 1), torch.tensor([2.0]))
    numbers, arrays = encode_answer(answer_audit(predicting(2.0), examples, EVERYTHING, task=task), task)
    arrays["correct"] = Array(np.array([1.5], dtype=np.float32))
    with pytest.raises(ValueError, match="'correct' holds numbers that are not from 0 to 1"):
        decode_answer(content_of(numbers, arrays), EVERYTHING, 1, False, task)


def test_what_a_specification_names_by_hand() -> None:
    y = images((0, 4), (0, 7), (0, 4), (0, 0))
    assert ForgetSpec().named(y).tolist() == [False] * 4
    assert EVERYTHING.named(y).tolist() == [True] * 4
    assert ForgetSpec(classes=(4, 9)).named(y).tolist() == [True, False, True, False]
    assert ForgetSpec(indices=(0, 3)).named(y).tolist() == [True, False, False, True]


def test_what_was_forgotten_before_is_in_no_part_by_hand() -> None:
    """Labels 4, 7, 4, 0: class 7 and position 3 are gone, 4 is to be forgotten; position 2 is as well."""
    examples = images((1, 4), (2, 7), (3, 4), (4, 0))
    forget, retain = ForgetSpec(classes=(4,), earlier_classes=(7,), earlier_indices=(3,)).split(examples)
    assert (forget.y.tolist(), retain.y.tolist()) == ([4, 4], [])
    forget, retain = ForgetSpec(indices=(1, 2), earlier_classes=(7,)).split(examples)
    assert (forget.y.tolist(), retain.y.tolist()) == ([4], [4, 0])
    forget, retain = ForgetSpec(everything=True, earlier_indices=(0, 3)).split(examples)
    assert (forget.y.tolist(), retain.y.tolist()) == ([7, 4], [])


def test_an_answer_is_silent_on_what_was_forgotten_before() -> None:
    """As `test_an_answer_by_hand`, the first example gone: no number of it reaches the server."""
    spec = ForgetSpec(indices=(2,), earlier_indices=(0,))
    answer = answer_with(SURE, images((1, 1), (-1, 0), (-1, 1)), spec, reference=0.0)
    assert answer.margin.tolist() == pytest.approx([SURE, -SURE])
    assert answer.forget.tolist() == [False, True]
    assert answer.divergence is not None
    assert answer.divergence.retain == pytest.approx(0.5 * math.log(4 / 3))


def test_a_position_that_was_forgotten_before_must_exist() -> None:
    with pytest.raises(BadInput, match="the request names example 9; this client has examples 0 to 0"):
        ForgetSpec(earlier_indices=(9,)).split(images((1, 1)))


def test_a_client_of_which_nothing_is_left_answers_all_the_same() -> None:
    spec = ForgetSpec(classes=(0,), earlier_classes=(1,))
    numbers, arrays = encode_answer(answer_with(SURE, images((1, 1)), spec, reference=0.0))
    decoded = decode_answer(content_of(numbers, arrays), spec, 1, with_reference=True)
    assert len(decoded.forget) == 0


@pytest.mark.parametrize(
    ("spec", "size", "count"),
    [
        (ForgetSpec(), 5, 0),
        (ForgetSpec(everything=True, earlier_indices=(1, 2)), 3, 3),
        (ForgetSpec(indices=(1, 4), earlier_indices=(1, 2)), 3, 1),
        (ForgetSpec(indices=(1, 4), earlier_classes=(7,)), None, None),
        (ForgetSpec(earlier_classes=(7,)), None, 0),
        (ForgetSpec(classes=(7,)), 5, None),
    ],
)
def test_how_much_an_answer_must_hold(spec: ForgetSpec, size: int | None, count: int | None) -> None:
    """Of 5 examples; where labels decide, only the client knows."""
    assert (spec.expected_size(5), spec.expected_count(5 if size is None else size)) == (size, count)


@pytest.mark.parametrize("claimed", [6, -1, 2.5, None])
def test_a_client_cannot_answer_for_more_than_it_holds(claimed: float | None) -> None:
    spec = ForgetSpec(earlier_classes=(0,))
    numbers, arrays = encode_answer(answer_with(SURE, images(*[(1, 1)] * 5), spec))
    numbers = {k: v for k, v in {**numbers, "num-examples": claimed}.items() if v is not None}
    with pytest.raises(ValueError, match=f"'num-examples' is {claimed}, expected a number from 0 to 5"):
        decode_answer(content_of(numbers, arrays), spec, 5, with_reference=False)


def test_the_record_carries_the_specification() -> None:
    for spec in (
        EVERYTHING,
        ForgetSpec(classes=(1,), indices=(2, 3), earlier_classes=(4,), earlier_indices=(5,)),
    ):
        assert ForgetSpec.from_config(spec.to_config()) == spec
    assert set(EVERYTHING.to_config()) == {"forget-all", "drop-classes", "drop-indices"}


# against a slow reference


@given(seed=st.integers(0, 2**32), batch_size=st.integers(1, 20))
def test_batches_equal_one_example_at_a_time(seed: int, batch_size: int) -> None:
    generator = torch_generator(seed, "examples")
    net, reference = nn.Linear(3, 4), nn.Linear(3, 4)
    for parameter in (*net.parameters(), *reference.parameters()):
        nn.init.normal_(parameter, generator=generator)
    examples = TensorExamples(
        torch.randn(13, 3, generator=generator), torch.randint(4, (13,), generator=generator)
    )
    answer = answer_audit(net, examples, ForgetSpec(classes=(1, 2)), reference, batch_size)
    kl = {True: 0.0, False: 0.0}
    for i, (x, y) in enumerate(zip(examples.x, examples.y.tolist(), strict=True)):
        ours, theirs = (m(x).double().softmax(0).tolist() for m in (net, reference))
        assert answer.margin[i].item() == pytest.approx(math.log(ours[y] / (1 - ours[y])), rel=1e-4, abs=1e-5)
        assert bool(answer.correct[i]) == (max(ours) == ours[y])
        kl[y in (1, 2)] += sum(r * math.log(r / u) for r, u in zip(theirs, ours, strict=True))
    assert answer.divergence is not None
    assert answer.divergence.forget == pytest.approx(kl[True], rel=1e-3, abs=1e-6)
    assert answer.divergence.retain == pytest.approx(kl[False], rel=1e-3, abs=1e-6)


# properties


@given(seed=st.integers(0, 2**32), with_reference=st.booleans())
def test_an_answer_travels_unchanged(seed: int, with_reference: bool) -> None:
    x = torch.randn(9, 2, generator=torch_generator(seed, "x"))
    y = torch.randint(2, (9,), generator=torch_generator(seed, "y"))
    spec = ForgetSpec(classes=(1,))
    sent = answer_with(SURE, TensorExamples(x, y), spec, -1.0 if with_reference else None)
    got = decode_answer(content_of(*encode_answer(sent)), spec, 9, with_reference)
    assert torch.equal(got.margin, sent.margin)
    assert torch.equal(got.correct, sent.correct)
    assert torch.equal(got.forget, sent.forget)
    assert got.divergence == sent.divergence


def test_only_three_numbers_per_example_leave_the_client() -> None:
    numbers, arrays = encode_answer(answer_with(SURE, images((1, 1), (2, 0)), EVERYTHING, reference=0.0))
    assert {name: (array.dtype, tuple(array.shape)) for name, array in arrays.items()} == {
        "margin": ("float32", (2,)),
        "correct": ("uint8", (2,)),
        "forget": ("uint8", (2,)),
    }
    assert set(numbers) == {"num-examples", "divergence-forget", "divergence-retain"}


def test_sums_by_hand() -> None:
    """w = ln 3 is right on (1, 1), (−1, 0) and wrong on (1, 0); class 1 is to be forgotten."""
    answer = answer_with(SURE, images((1, 1), (-1, 0), (1, 0)), ForgetSpec(classes=(1,)))
    assert encode_sums(answer) == {
        "num-examples": 3,
        "num-forget": 1,
        "correct-forget": 1,
        "correct-retain": 1,
    }


@given(seed=st.integers(0, 2**32), with_reference=st.booleans())
def test_sums_travel_unchanged_and_tell_no_probability(seed: int, with_reference: bool) -> None:
    x = torch.randn(9, 2, generator=torch_generator(seed, "x"))
    y = torch.randint(2, (9,), generator=torch_generator(seed, "y"))
    spec = ForgetSpec(classes=(1,))
    sent = answer_with(SURE, TensorExamples(x, y), spec, -1.0 if with_reference else None)
    got = decode_answer(content_of(encode_sums(sent), ArrayRecord()), spec, 9, with_reference)
    assert got.margin is None
    assert encode_sums(got) == encode_sums(sent)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num-forget", 4, "from 0 to 3"),
        ("num-forget", 2, "'num-forget' marks 2 examples, the request names 3"),
        ("correct-forget", -1, "from 0 to 3"),
        ("correct-forget", 0.5, "from 0 to 3"),
        ("correct-retain", 1, "from 0 to 0"),
    ],
)
def test_impossible_sums_are_noticed(name: str, value: float, said: str) -> None:
    numbers = {**encode_sums(answer_with(SURE, images((1, 1), (-1, 0), (1, 0)), EVERYTHING)), name: value}
    with pytest.raises(ValueError, match=said):
        decode_answer(content_of(numbers, ArrayRecord()), EVERYTHING, 3, with_reference=False)


@pytest.mark.parametrize(
    "spec", [EVERYTHING, ForgetSpec(), ForgetSpec(classes=(3, 1)), ForgetSpec(indices=(5, 0))]
)
def test_a_specification_travels_unchanged(spec: ForgetSpec) -> None:
    assert ForgetSpec.from_config(spec.to_config()) == spec


def test_a_question_is_answered_with_the_weights_it_brings() -> None:
    """The model that is built has w = 0; the question brings w = ln 3 and, as reference, w = 0."""
    question = RecordDict(
        {
            "arrays": wire.FlatRecord(weights(SURE), LAYOUT),
            "reference": wire.FlatRecord(weights(0.0), LAYOUT),
            "config": EVERYTHING.to_config(),
        }
    )
    numbers, arrays = answer_question(question, images((1, 1)), loads_into(two_weight_model()))
    assert arrays["margin"].numpy().tolist() == pytest.approx([SURE])
    assert numbers["divergence-forget"] == pytest.approx(0.5 * math.log(4 / 3))
    assert numbers["divergence-retain"] == 0.0


def test_a_model_is_judged_in_eval_mode_and_comes_back_in_its_own() -> None:
    net = nn.Sequential(nn.Dropout(0.9), model(SURE))
    net.train()
    answer = answer_audit(net, images(*[(1, 1)] * 50), EVERYTHING)
    assert answer.margin.tolist() == pytest.approx([SURE] * 50)
    assert net.training
    assert net[0].training


# errors


def test_an_index_that_the_client_does_not_have() -> None:
    with pytest.raises(BadInput, match="names example 2; this client has examples 0 to 1"):
        answer_with(SURE, images((1, 1), (1, 0)), ForgetSpec(indices=(1, 2)))


# damage is noticed


@pytest.mark.parametrize(
    ("name", "damaged", "message"),
    [
        ("margin", [1.0, math.nan], "not finite"),
        ("margin", [1.0, math.inf], "not finite"),
        ("margin", [1.0], r"float32 \(1,\), expected float32 \(2,\)"),
        ("margin", None, "no array 'margin'"),
        ("correct", [1, 2], "'correct' holds 2, expected only 0 and 1"),
        ("correct", [0, 1], "calls a label wrong"),
        ("correct", [1.0, 0.0], "'correct' is float32"),
        ("forget", [1, 0], "'forget' marks 1 examples, the request names 2"),
    ],
)
def test_a_damaged_array_is_noticed(name: str, damaged: list[float] | None, message: str) -> None:
    numbers, arrays = encode_answer(answer_with(SURE, images((1, 1), (1, 0)), EVERYTHING))
    del arrays[name]
    if damaged is not None:
        dtype = np.uint8 if all(isinstance(v, int) for v in damaged) else np.float32
        arrays[name] = Array(np.array(damaged, dtype=dtype))
    with pytest.raises(ValueError, match=message):
        decode_answer(content_of(numbers, arrays), EVERYTHING, 2, with_reference=False)


@pytest.mark.parametrize("damaged", [None, math.inf, -1.0])
def test_a_damaged_sum_is_noticed(damaged: float | None) -> None:
    numbers, arrays = encode_answer(answer_with(SURE, images((1, 1)), EVERYTHING, reference=0.0))
    del numbers["divergence-retain"]
    if damaged is not None:
        numbers["divergence-retain"] = damaged
    with pytest.raises(ValueError, match="sums of divergence"):
        decode_answer(content_of(numbers, arrays), EVERYTHING, 1, with_reference=True)


def test_an_empty_answer_is_noticed() -> None:
    with pytest.raises(ValueError, match="no array 'margin' in the answer; it has \\[\\]"):
        decode_answer(RecordDict({"config": ConfigRecord()}), EVERYTHING, 1, with_reference=False)
    with pytest.raises(ValueError, match="no array"):
        decode_answer(content_of({}, ArrayRecord()), EVERYTHING, 1, with_reference=False)
