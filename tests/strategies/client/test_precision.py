"""Local training in bfloat16 or float32: what is rounded, and what stays as it is."""

import pytest
import torch
from torch import nn

from strategies.client.precision import PRECISION, Precision, computed_in, forward
from strategies.client.settings import TrainSettings
from strategies.client.training import local_train
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.task import CLASSIFICATION

CPU = torch.device("cpu")


def test_a_product_in_bfloat16_worked_by_hand() -> None:
    """1 + 2^-9 has nine digits behind the point; bfloat16 keeps seven, so it becomes 1, and the product 1."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x = torch.tensor([[1.0 + 2.0**-9]])
    found = {}
    for precision in ("float32", "bf16"):
        with computed_in(precision, CPU):
            found[precision] = forward(CLASSIFICATION, layer, x, CPU)
    assert found["float32"].item() == 1.0 + 2.0**-9
    assert found["bf16"].item() == 1.0
    assert found["bf16"].dtype == torch.float32
    assert PRECISION.get() == "float32"


def trained(precision: Precision) -> torch.Tensor:
    generator = torch_generator(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    for p in model.parameters():
        nn.init.normal_(p, generator=generator)
    x = torch.randn(40, 4, generator=generator)
    with computed_in(precision, CPU):
        local_train(
            model, TensorExamples(x, (x.sum(dim=1) > 0).long()), TrainSettings(local_steps=20), generator
        )
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_in_bfloat16_is_near_that_in_float32_and_repeats() -> None:
    plain, mixed = trained("float32"), trained("bf16")
    assert torch.equal(mixed, trained("bf16"))
    assert 0 < float((plain - mixed).norm()) < 0.05 * float(plain.norm())


def test_the_default_changes_nothing() -> None:
    with computed_in("bf16", CPU):
        pass
    assert torch.equal(trained("float32"), trained("float32"))


def test_tf32_is_refused_without_a_gpu() -> None:
    with (
        pytest.raises(BadInput, match=r'run.precision: given "tf32", which run.device = "cpu" does not have'),
        computed_in("tf32", CPU),
    ):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float32_on_a_gpu_is_no_tf32() -> None:
    a = torch.full((256, 256), 1.0 + 2.0**-12, device="cuda")
    found = {}
    for precision in ("float32", "tf32"):
        with computed_in(precision, torch.device("cuda")):
            found[precision] = float((a @ torch.eye(256, device="cuda"))[0, 0])
    assert found == {"float32": 1.0 + 2.0**-12, "tf32": 1.0}
