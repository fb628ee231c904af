"""strategies/task.py: what outputs mean, by hand, and whatever trains and forgets asks the task."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn
from torch.nn import functional

from strategies import fedavg
from strategies.client.distillation import distillation_loss
from strategies.client.evaluation import evaluate, outputs_of
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, local_train, summed_gradient
from strategies.core.examples import TensorExamples
from strategies.core.secret_random import Randomness
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.training import PrivateTrainer
from strategies.models.fisher import fisher_scores
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, OutputSpec
from tests.strategies.other_tasks import Regression
from unlearning.audit.evidence import answer_audit
from unlearning.central.ascent import AscentSettings, ascend
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.fisher import fisher_sum
from unlearning.central.gradients import Objective, gradient_sum
from unlearning.central.parameters import flat_parameters
from unlearning.forget_spec import ForgetSpec

seeds = st.integers(0, 2**32)
REGRESSION = Regression()


def line(slope: float = 1.0) -> nn.Linear:
    """Return f(x) = slope · x."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, slope)
    return model


def points(*pairs: tuple[float, float]) -> TensorExamples:
    x, y = zip(*pairs, strict=True)
    return TensorExamples(
        torch.tensor(x, dtype=torch.float32).unsqueeze(1), torch.tensor(y, dtype=torch.float32)
    )


# by hand


def test_classification_by_hand() -> None:
    """Logits (ln 3, 0): p = ¾ and ¼. Losses −ln ¾ and −ln ¼; φ = ± ln 3; the first is right."""
    outputs, targets = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log(), torch.tensor([0, 1])
    assert CLASSIFICATION.losses(outputs, targets).tolist() == pytest.approx([0.28768, 1.38629], rel=1e-4)
    assert CLASSIFICATION.predict(outputs).tolist() == [0, 0]
    assert CLASSIFICATION.scores(outputs, targets).tolist() == [100.0, 0.0]
    assert CLASSIFICATION.margins(outputs, targets).tolist() == pytest.approx([1.09861, -1.09861], rel=1e-4)
    assert CLASSIFICATION.groups(targets).equal(targets)
    assert CLASSIFICATION.outputs(OutputSpec(7)) == 7
    weights, labels = zip(*CLASSIFICATION.expected_targets(outputs), strict=True)
    assert torch.stack(weights, dim=1)[0].tolist() == pytest.approx([0.75, 0.25])
    assert [label.tolist() for label in labels] == [[0, 0], [1, 1]]


def test_the_defaults_of_a_task_by_hand() -> None:
    """Outputs 1 and 3 for targets 1 and 1: losses 0 and 2, their mean 1, margins the losses turned round."""
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])
    assert REGRESSION.losses(outputs, targets).tolist() == [0.0, 2.0]
    assert float(REGRESSION.loss(outputs, targets)) == 1.0
    assert float(REGRESSION.summed_loss(outputs, targets)) == 2.0
    assert REGRESSION.margins(outputs, targets).tolist() == [0.0, -2.0]
    assert REGRESSION.divergences(outputs, torch.tensor([[0.0], [3.0]])).tolist() == [1.0, 0.0]
    assert REGRESSION.groups(targets) is None
    ((weights, expected),) = REGRESSION.expected_targets(outputs)
    assert (weights.tolist(), expected.tolist()) == ([1.0, 1.0], [1.0, 3.0])


def test_inputs_by_name_become_arguments_by_name() -> None:
    def model(first: Tensor, second: Tensor) -> Tensor:
        return first - second

    given = {"second": torch.tensor([[1.0]]), "first": torch.tensor([[3.0]])}
    assert REGRESSION.forward(model, given).tolist() == [[2.0]]


# against a slow reference


@given(seed=seeds)
def test_every_mean_is_the_arithmetic_one(seed: int) -> None:
    outputs = torch.randn(9, 4, generator=torch_generator(seed))
    targets = torch.randint(4, (9,), generator=torch_generator(seed, "y"))
    each = CLASSIFICATION.losses(outputs, targets)
    torch.testing.assert_close(CLASSIFICATION.loss(outputs, targets), each.mean())
    torch.testing.assert_close(CLASSIFICATION.summed_loss(outputs, targets), each.sum())
    torch.testing.assert_close(each.mean(), functional.cross_entropy(outputs, targets))


@given(seed=seeds, temperature=st.floats(0.5, 8))
def test_distillation_is_the_mean_divergence(seed: int, temperature: float) -> None:
    """T² times torch's own KL divergence, averaged over the batch."""
    student, teacher = torch.randn(2, 9, 4, generator=torch_generator(seed))
    theirs = functional.kl_div(
        (student / temperature).log_softmax(1),
        (teacher / temperature).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), temperature**2 * theirs)


# another task is asked wherever one is learned


def test_training_follows_the_task() -> None:
    """f(x) = wx at w = 1, (1, 3): gradient (w − 3)·1 = −2, so that a step of 0.1 leads to 1.2."""
    model, train = line(), TrainSettings(learning_rate=0.1, momentum=0.0, local_epochs=1)
    stats = local_train(model, points((1, 3)), train, torch_generator(0), task=REGRESSION)
    assert model.weight.item() == pytest.approx(1.2)
    assert stats.mean_loss == 2.0
    job = ClientJob(line(), points((1, 3)), train, StrategySettings(), "0", 1, torch_generator(0))
    result = fedavg.train_client(replace(job, task=REGRESSION))
    assert flat_parameters(result.model).item() == pytest.approx(1.2)


def test_private_training_follows_the_task() -> None:
    """Without noise and with a wide clip, all examples in the batch, the same step."""
    model = line()
    train = TrainSettings(learning_rate=0.1, momentum=0.0, local_steps=1, batch_size=1)
    trainer = PrivateTrainer(0.0, 100.0, Randomness("seeded"))
    trainer(model, points((1, 3)), train, torch_generator(0), task=REGRESSION)
    assert model.weight.item() == pytest.approx(1.2)


def test_gradients_and_scores_follow_the_task() -> None:
    """Gradient of ½(wx − y)² at w = 1: −2 at (1, 3) and 2 at (2, 1); squares 4 and 4."""
    both, model = points((1, 3), (2, 1)), line()
    assert gradient_sum(model, both, Objective(REGRESSION)).total.tolist() == [0.0]
    summed_gradient(model, [both, points((1, 3))], [1.0, 0.5], REGRESSION)
    assert model.weight.grad is not None
    assert model.weight.grad.item() == -1.0
    assert fisher_scores(line(), both, REGRESSION)["weight"].item() == 4.0
    assert fisher_sum(line(), both, task=REGRESSION).total.tolist() == [0.0]  # It believes in its prediction


def test_evaluation_and_audit_follow_the_task() -> None:
    """f(x) = x: right at (2, 2), off by ½ at (1, 1.5): scores 100 and 75, losses 0 and ⅛."""
    both = points((2, 2), (1, 1.5))
    assert outputs_of(line(), both, task=REGRESSION).tolist() == [[2.0], [1.0]]
    found = evaluate(line(), both, task=REGRESSION)
    assert (found.accuracy, found.loss) == (87.5, 0.0625)
    answer = answer_audit(line(), both, ForgetSpec(indices=(1,)), line(2.0), task=REGRESSION)
    assert answer.margin is not None
    assert answer.divergence is not None
    assert answer.margin.tolist() == [0.0, -0.125]
    assert (answer.divergence.forget, answer.divergence.retain) == (1.0, 4.0)


def test_central_methods_follow_the_task() -> None:
    step = {"learning_rate": 0.1, "momentum": 0.0, "epochs": 1}
    down = finetune(line(), points((1, 3)), FinetuneSettings(**step), torch_generator(0), task=REGRESSION)
    up = ascend(line(), points((1, 3)), AscentSettings(**step), torch_generator(0), task=REGRESSION)
    assert (flat_parameters(down).item(), flat_parameters(up).item()) == pytest.approx((1.2, 0.8))
