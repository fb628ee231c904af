"""What tells models apart that are not to be called for one another."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strategies.client.kinds import kind_of_model
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.models.mask import hold

MASK = torch.arange(36).view(6, 6) % 2 > 0


class Bent(nn.Module):
    """A square with something after it, of which torch prints nothing."""

    def __init__(self, bend: Callable[[Tensor], Tensor] = torch.tanh, slope: float = 1.0) -> None:
        super().__init__()
        self.bend, self.slopes = bend, {"of": [slope]}
        self.line = nn.Linear(6, 6)


def square(*further: nn.Module, eps: float = 1e-5, dropout: float = 0.1) -> nn.Sequential:
    with seeded_layers(torch_generator(0, "square")):
        first, last = nn.Linear(6, 6), nn.Linear(6, 6)
    return nn.Sequential(first, nn.GroupNorm(1, 6, eps), nn.Dropout(dropout), last, Bent(), *further)


def tied() -> nn.Module:
    model = square()
    model.get_submodule("4.line").weight = model.get_parameter("0.weight")  # type: ignore[assignment]
    return model


def tied_elsewhere() -> nn.Module:
    model = square()
    model.get_submodule("4.line").weight = model.get_parameter("3.weight")  # type: ignore[assignment]
    return model


def called_twice() -> nn.Module:
    model = square()
    return model.append(model[0])


def frozen() -> nn.Module:
    model = square()
    model.get_parameter("0.bias").requires_grad_(False)
    return model


def hooked() -> nn.Module:
    model = square()
    model[0].register_forward_hook(lambda layer, given, output: 2 * output)
    return model


def changed_on_the_way() -> nn.Module:
    model = square()
    model.get_parameter("0.bias").register_hook(lambda gradient: 2 * gradient)  # type: ignore[no-untyped-call]
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": square,
    "another epsilon": lambda: square(eps=1e-3),
    "another share": lambda: square(dropout=0.2),
    "one layer more": lambda: square(nn.ReLU()),
    "a layer twice": called_twice,
    "another number within": lambda: square(Bent(slope=2.0)),
    "a number within": lambda: square(Bent()),
    "another function": lambda: square(Bent(torch.relu)),
    "tied": tied,
    "tied to another": tied_elsewhere,
    "frozen": frozen,
    "masked": lambda: hold(square(), {"0.weight": MASK}),
    "masked otherwise": lambda: hold(square(), {"0.weight": ~MASK}),
    "masked elsewhere": lambda: hold(square(), {"3.weight": MASK}),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_are_made_alike_are_of_a_kind(name: str) -> None:
    assert kind_of_model(MODELS[name]()) == kind_of_model(MODELS[name]())


def test_all_others_are_apart() -> None:
    kinds = [kind_of_model(make()) for make in MODELS.values()]
    assert len(set(kinds)) == len(MODELS)


@pytest.mark.parametrize("make", [hooked, changed_on_the_way])
def test_a_hook_is_like_itself_alone(make: Callable[[], nn.Module]) -> None:
    model = make()
    assert kind_of_model(model) == kind_of_model(model)
    assert kind_of_model(model) not in (kind_of_model(make()), kind_of_model(square()))


def test_what_is_trained_does_not_count() -> None:
    model = square()
    before = kind_of_model(model)
    nn.init.zeros_(model.get_parameter("0.weight"))
    assert kind_of_model(model.eval()) == before


def statistics(model: nn.Module) -> None:
    """Have batch norm change its statistics, of which torch does not count two."""
    model(torch.randn(4, 6, generator=torch_generator(0)))


def pruned(model: nn.Module) -> None:
    hold(model, {"0.weight": MASK})


def slower(model: nn.Module) -> None:
    model.get_submodule("2").p = 0.7  # type: ignore[assignment]


def frozen_late(model: nn.Module) -> None:
    model.get_parameter("0.bias").requires_grad_(False)


@pytest.mark.parametrize("change", [statistics, pruned, slower, frozen_late])
def test_a_model_that_changes_becomes_another(change: Callable[[nn.Module], None]) -> None:
    first, norm, _, last, *_ = square()
    model = nn.Sequential(first, norm, nn.Dropout(0.1), last, nn.BatchNorm1d(6))
    before = kind_of_model(model)
    change(model)
    assert kind_of_model(model) != before


def test_much_that_is_frozen_is_looked_at_where_it_changed() -> None:
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 6))
    weight = model.get_parameter("0.weight").requires_grad_(False)
    before = kind_of_model(model)
    assert kind_of_model(model) == before
    with torch.no_grad():
        weight.add_(1)
    assert kind_of_model(model) != before
