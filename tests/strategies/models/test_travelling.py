"""What of a model travels: by hand, for tied and frozen parameters, buffers, and marked layers."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strategies.core import wire
from strategies.models import travelling
from strategies.models.batch_norm import Local, Recalibrated, mark


class Tied(nn.Module):
    """A table of four words of two numbers, which also gives the scores of the words."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 2)
        self.scores = nn.Linear(2, 4, bias=False)
        self.scores.weight = self.table.weight
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, words: Tensor) -> Tensor:
        """Return a score per word."""
        return torch.as_tensor(self.scores(self.table(words)))


def normed(kind: type[Local] | type[Recalibrated] | None) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    if kind is not None:
        layer = model[1]
        assert isinstance(layer, nn.BatchNorm1d)
        mark(layer, kind)
    return model


def test_tied_weights_travel_once_and_buffers_not_at_all() -> None:
    model = Tied()
    assert list(travelling.travelling(model)) == ["table.weight"]
    assert list(travelling.staying(model)) == ["seen", "scale"]
    layout = travelling.layout_of(model)
    wire.load_flat(model, torch.arange(8.0), layout)
    assert model.scores.weight.flatten().tolist() == list(range(8))
    assert travelling.vector_of(model).tolist() == list(range(8))


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2))
    assert list(travelling.travelling(model)) == ["1.weight", "1.bias"]
    assert list(travelling.staying(model)) == ["0.weight", "0.bias"]
    assert list(travelling.record_of(model)) == ["1.weight", "1.bias"]


AFFINE = ["1.weight", "1.bias"]
STATISTICS = ["1.running_mean", "1.running_var"]


@pytest.mark.parametrize(
    ("kind", "sent", "local"),
    [(None, AFFINE, []), (Local, [], AFFINE + STATISTICS), (Recalibrated, AFFINE + STATISTICS, [])],
)
def test_a_batch_norm_travels_as_its_mark_says(
    kind: type[Local] | type[Recalibrated] | None, sent: list[str], local: list[str]
) -> None:
    for model in (normed(kind), copy.deepcopy(normed(kind))):
        around = ["0.weight", "0.bias"], ["2.weight", "2.bias"]
        assert list(travelling.travelling(model)) == [*around[0], *sent, *around[1]]
        assert list(travelling.local(model)) == local


def test_a_whole_model_without_buffers_travels_as_it_always_did() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    assert travelling.layout_of(model) == wire.Layout.of(model.state_dict())
    assert travelling.fingerprint(travelling.staying(model)) == ""


def changed(name: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    state = {"a": torch.ones(2), "b": torch.zeros(3)}
    return state | {name: change(state[name])}


def test_a_fingerprint_names_the_first_entry_that_differs() -> None:
    kept = {"a": torch.ones(2), "b": torch.zeros(3)}
    said = travelling.fingerprint(kept)
    assert travelling.first_difference(kept, said) == ""
    for name in kept:
        other = changed(name, lambda t: t + 1e-6)
        assert travelling.first_difference(other, said) == f"'{name}' differs"
    assert travelling.first_difference(changed("b", lambda t: t.double()), said) == "'b' differs"
    assert travelling.first_difference({"a": kept["a"]}, said) == "1 entries do not travel here, 2 there"


def test_what_a_client_changed_is_put_back_for_the_next() -> None:
    model = normed(Local)
    model.register_buffer("unsaved", torch.zeros(1), persistent=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = travelling.changeable(model)
    model.get_buffer("unsaved").add_(1)
    layer = model.get_submodule("1")
    with torch.no_grad():
        layer.get_parameter("weight").mul_(3)
    model.train()(torch.rand(4, 3))
    assert int(layer.get_buffer("num_batches_tracked")) == 1
    travelling.put_back(kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.get_buffer("unsaved").item() == 0
