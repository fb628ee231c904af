"""The project's own ClientApp, with the reference CNN for its CNN, so that all contenders train one model."""

from app import models
from app.client_app import app
from benchmarks.jobs import reference_cnn

__all__ = ["app"]

models._BUILDERS["cnn"] = reference_cnn
