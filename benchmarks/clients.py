"""The project's own ClientApp, with the reference CNN for its CNN, so that all contenders train one model.

To be loaded by the clients of contenders only: it changes what ``model.name = "cnn"`` means in the process.
"""

from app.client_app import app
from app.models import built_in as models
from benchmarks.jobs import reference_cnn

__all__ = ["app"]

models._BUILDERS["cnn"] = reference_cnn
