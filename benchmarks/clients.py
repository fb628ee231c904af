"""The project's own ClientApp, with the reference CNN for its CNN, so that all contenders train one model.

To be imported by contenders only: it changes what ``model.name = "cnn"`` means in the whole process.
"""

from torch import nn

from app.client_app import app
from app.config.settings import ModelSettings
from app.models import built_in as models
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS, reference_cnn

__all__ = ["app", "initial_model"]

models._BUILDERS["cnn"] = reference_cnn


def initial_model() -> nn.Module:
    """Return the model that every contender starts from."""
    return models.build_model(ModelSettings(), INPUT_SHAPE, NUM_GROUPS, seed=0)
