"""Lethe: federated learning that can forget, from Python.

::

    import lethe

    project = lethe.Project(model=make_model, data=data_of)

In a Flower project, the components are ``app = lethe.server_app(project)`` and ``app =
lethe.client_app(project)``, each in a module of its own.
"""

from typing import TYPE_CHECKING

from app.project import ModelSpec, Node, Project, bind
from app.project.loading import named
from strategies.core.examples import Examples
from strategies.task import Classification, OutputSpec, Task

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

__all__ = [
    "Classification",
    "Examples",
    "ModelSpec",
    "Node",
    "OutputSpec",
    "Project",
    "Task",
    "client_app",
    "server_app",
]


def server_app(project: Project) -> "ServerApp":
    """Return the ServerApp that trains, forgets and audits with a project."""
    from app.server_app import app

    bind(named(project))
    return app


def client_app(project: Project) -> "ClientApp":
    """Return the ClientApp that trains a project's model on its data."""
    from app.client_app import app

    bind(named(project))
    return app
