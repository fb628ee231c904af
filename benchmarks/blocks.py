"""The project's own models on images of 28×28 pixels, and the parts of them that pruned clients train."""

from typing import Literal

from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS
from strategies.core.wire import Layout
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import Kept, block_index
from strategies.pruned_dp.pruned_dp import Pruning
from strategies.pruned_dp.settings import PrunedSettings

Score = Literal["ordered", "random"]


def built_in(name: str) -> nn.Module:
    """Return a model of the project by its name."""
    return build_model(ModelSettings.model_validate({"name": name}), INPUT_SHAPE, NUM_GROUPS, seed=0)


def kept_neurons(model: nn.Module, keep: float, score: Score) -> Kept:
    """Return the hidden neurons that a client trains which keeps a share of them, chosen by a score."""
    return Pruning(PrunedSettings(score=score), model, 0).kept("0", keep, 1, {})


def block(model: nn.Module, keep: float, score: Score) -> tuple[Tensor, Layout]:
    """Return the positions of the parameters of those neurons in the flat model, and the layout they have."""
    layout = Layout.of(model.state_dict())
    return block_index(layout, hidden_groups(model), kept_neurons(model, keep, score))
