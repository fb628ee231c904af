"""A user's own work: what a project is, where it comes from, and what it makes of a run."""

from app.project.data import ClientData
from app.project.loading import (
    LoadedProject,
    bind,
    bound,
    explained,
    loaded_from,
    project_of,
    using,
)
from app.project.project import ModelSpec, Node, Project
from app.project.workload import Workload

__all__ = [
    "ClientData",
    "LoadedProject",
    "ModelSpec",
    "Node",
    "Project",
    "Workload",
    "bind",
    "bound",
    "explained",
    "loaded_from",
    "project_of",
    "using",
]
