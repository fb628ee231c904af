"""app/models/per_client.py: whose model is which, and what is refused before the first round."""

import re

import pytest
import torch
from torch import nn

from app.models.per_client import build_client_model, model_name_of
from strategies.core.errors import BadInput
from strategies.fedmd.settings import AUTHORS_MODELS
from strategies.settings import StrategySettings

AUTHORS = [name.strip() for name in AUTHORS_MODELS.split(",")]


def own_model(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_outputs))


def one_output(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return own_model(input_shape, 1)


def too_narrow(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3, num_outputs))


def no_model(input_shape: tuple[int, ...], num_outputs: int) -> str:
    return "a model"


def built(name: str, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0, client_id: str = "0") -> nn.Module:
    return build_client_model(name, shape, 7, seed, client_id)


def test_clients_take_the_list_in_turn_and_a_node_its_own() -> None:
    settings = StrategySettings(name="fedmd", models="cnn-8-16, mlp-4")
    assert [model_name_of(settings, {}, i) for i in ("0", "1", "2")] == ["cnn-8-16", "mlp-4", "cnn-8-16"]
    assert model_name_of(settings, {"model.name": "mlp-9"}, "0") == "mlp-9"
    named = {model_name_of(settings, {}, f"hospital-{i}") for i in range(9)}
    assert named == {"cnn-8-16", "mlp-4"}
    assert model_name_of(settings, {}, "hospital-1") == model_name_of(settings, {}, "hospital-1")


def test_the_authors_two_layers_by_hand() -> None:
    """3×3 convolutions 1 → 16 → 32 with biases, norms, then 32 · 3 · 3 → 7 without: 8 → 8 → 7 → 3."""
    expected = (9 * 16 + 16) + 2 * 16 + (9 * 16 * 32 + 32) + 2 * 32 + 32 * 3 * 3 * 7
    assert sum(p.numel() for p in built("cnn-16-32@0.2").parameters()) == expected


@pytest.mark.parametrize("name", [*AUTHORS, "mlp-5", "mlp-5-6-7@0.3"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_every_name_builds_a_model_of_the_shape(name: str, shape: tuple[int, ...]) -> None:
    assert built(name, shape).eval()(torch.zeros(3, *shape)).shape == (3, 7)


def test_a_node_brings_its_own() -> None:
    assert built(f"{__name__}:own_model")(torch.zeros(4, 1, 8, 8)).shape == (4, 7)


def test_weights_are_the_seed_and_the_client() -> None:
    def first(**more: object) -> torch.Tensor:
        return next(built("mlp-5", **more).parameters()).detach()  # type: ignore[arg-type]

    before = torch.get_rng_state()
    assert torch.equal(first(), first())
    assert not torch.equal(first(), first(seed=1))
    assert not torch.equal(first(), first(client_id="1"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "allowed 'module:function' or one of architectures"),
        ("cnn-8", "allowed 'module:function'"),
        ("nowhere_at_all:make", "cannot be imported"),
        (f"{__name__}:nothing", "cannot be imported"),
        (f"{__name__}:no_model", "gave a str, wanted a torch.nn.Module"),
        (f"{__name__}:one_output", "answers two inputs with (2, 1), wanted logits of shape (2, 7)"),
        (f"{__name__}:too_narrow", "does not take inputs of shape (1, 8, 8)"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        built(name)


def test_tables_are_for_mlps() -> None:
    with pytest.raises(BadInput, match="takes images"):
        built("cnn-8-16", (6,))
    assert built("mlp-4", (6,))(torch.zeros(2, 6)).shape == (2, 7)
