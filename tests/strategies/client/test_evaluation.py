"""Accuracy and loss as one example at a time gives them, whatever the batches."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from strategies.client.evaluation import Evaluation, eval_mode, evaluate, outputs_of
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator


def net() -> nn.Module:
    """Return a model that behaves differently in train mode: batch norm and dropout."""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    generator = torch_generator(0, "net")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def data(n: int = 23) -> Examples:
    """Return examples of three classes."""
    generator = torch_generator(0, "data")
    return TensorExamples(torch.randn(n, 4, generator=generator), torch.arange(n) % 3)


def plain(x: Tensor) -> Examples:
    """Return inputs with labels that nobody reads."""
    return TensorExamples(x, torch.zeros(len(x), dtype=torch.int64))


def slow(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """Return accuracy in percent and mean cross-entropy, one example at a time, in Python floats."""
    model.eval()
    correct, losses = 0, []
    for x, y in zip(examples.x, examples.y, strict=True):
        with torch.no_grad():
            logits: list[float] = model(x.unsqueeze(0))[0].double().tolist()
        correct += logits.index(max(logits)) == int(y)
        losses.append(math.log(math.fsum(math.exp(v - logits[int(y)]) for v in logits)))
    return 100.0 * correct / len(examples), math.fsum(losses) / len(losses)


def identity() -> nn.Linear:
    """Return a model whose logits are its inputs."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
        model.bias.zero_()
    return model


def test_by_hand() -> None:
    """Logits (0, 0) and (0, ln 3), both of class 0: losses ln 2 and ln 4, half right (a tie is the first)."""
    examples = TensorExamples(torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]), torch.tensor([0, 0]))
    result = evaluate(identity(), examples)
    assert (result.accuracy, result.num_examples) == (50.0, 2)
    assert result.loss == pytest.approx((math.log(2.0) + math.log(4.0)) / 2, rel=1e-6)


def test_equals_slow_loop() -> None:
    """Batch norm and dropout are in eval mode, so that examples do not see each other."""
    result = evaluate(net(), data(), batch_size=5)
    accuracy, loss = slow(net(), data())
    assert result.accuracy == pytest.approx(accuracy)
    assert 0.0 < accuracy < 100.0
    assert result.loss == pytest.approx(loss, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30))
def test_batches_do_not_matter(batch_size: int) -> None:
    """Every batch size gives the logits, in order, that one batch gives."""
    whole = outputs_of(net(), data())
    assert whole.shape == (23, 3)
    torch.testing.assert_close(outputs_of(net(), data(), batch_size), whole)
    parts, once = evaluate(net(), data(), batch_size), evaluate(net(), data())
    assert parts.accuracy == once.accuracy
    assert parts.loss == pytest.approx(once.loss, rel=1e-5)


def test_batch_size_is_kept() -> None:
    """23 examples in batches of 10 are 10, 10 and 3."""
    sizes: list[int] = []
    model = identity()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    outputs_of(model, plain(torch.zeros(23, 2)), batch_size=10)
    assert sizes == [10, 10, 3]


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored(training: bool) -> None:
    """A model comes back in the mode it had, also when the work fails."""
    model = net().train(training)
    evaluate(model, data())
    assert model.training is training
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        outputs_of(model, plain(torch.zeros(2, 9)))
    assert model.training is training


def test_eval_mode_inside() -> None:
    """Inside, the very same model is in eval mode and records no gradients; outside, it records them."""
    model = net()
    with eval_mode(model) as inside:
        assert inside is model
        assert not any(module.training for module in model.modules())
        assert not model(data().x).requires_grad
    assert model(data().x).requires_grad


def test_model_is_unchanged() -> None:
    """Not even the running statistics of batch norm."""
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, data())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_logits_are_plain_float32() -> None:
    """A model in half precision answers in float32, without a graph."""
    logits = outputs_of(identity().to(torch.bfloat16), plain(torch.ones(3, 2, dtype=torch.bfloat16)))
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert logits.tolist() == [[1.0, 1.0]] * 3


def test_global_generator_has_no_effect() -> None:
    """Dropout is off: the logits repeat whatever the global seed, and nothing is drawn from it."""
    expected = outputs_of(net(), data())
    with torch.random.fork_rng():
        for seed in (1, 2):
            model = net().train()
            torch.default_generator.manual_seed(seed)
            before = torch.get_rng_state()
            assert outputs_of(model, data()).equal(expected)
            assert torch.get_rng_state().equal(before)


def test_train_mode_would_be_noticed() -> None:
    """The same model in train mode gives other logits, which the slow loop does not give."""
    with torch.random.fork_rng(), torch.no_grad():
        damaged = net().train()(data().x)
    assert not torch.allclose(damaged, outputs_of(net(), data()))


def test_result_is_frozen() -> None:
    """An evaluation is a value."""
    assert Evaluation(50.0, 0.5, 2) == Evaluation(50.0, 0.5, 2)
    with pytest.raises(AttributeError, match="cannot assign"):
        Evaluation(50.0, 0.5, 2).loss = 0.0  # type: ignore[misc]
