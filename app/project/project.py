"""The object by which a user's own model, data and task come in."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.task import Task

Partition = Callable[[Any, int, np.random.Generator], Any]
"""From (group or target of each example, number of clients, generator) to one array of positions a client."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model is asked to take and to give.

    Parameters
    ----------
    input_shape
        Shape of one input; empty where an input has several parts, or where the server has no example.
    num_outputs
        Size of the last layer, as the task says.
    num_groups
        Number of groups of the data, such as classes; 0 where there are none.
    config
        The run config, flat.
    """

    input_shape: tuple[int, ...]
    num_outputs: int
    num_groups: int
    config: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """The client whose data are asked for; `data` must be a pure function of it.

    Parameters
    ----------
    index
        Number of the client, from 0; −1 for a node with a name instead of a number.
    count
        Number of clients; 0 where it is not known, as in a deployment.
    id
        The client-id, such as ``3`` or ``hospital-a``.
    config
        What the node was started with; ``data.path`` is where a node's own data usually lie.
    seed
        The run's seed.
    """

    index: int
    count: int
    id: str
    config: Mapping[str, Scalar]
    seed: int

    def generator(self) -> np.random.Generator:
        """Return a generator that is this client's own, the same in every process."""
        from strategies.core.seeds import numpy_generator

        return numpy_generator(self.seed, "data of", self.id)


@dataclass(frozen=True, eq=False)
class Project:
    """A user's own work. What is left out is built in, and named by the run config.

    Parameters
    ----------
    model
        ``model(spec)`` returns a `torch.nn.Module`, whose first weights it draws from torch's global
        generator, which is seeded; or a module, of which each use takes a copy.
    data
        ``data(node)`` returns a node's examples: ``train``, ``(train, test)``, or a dict with these names. Or
        all examples together, which are spread over the clients (with test data, these are the server's); or
        a function without arguments that returns them. Examples are a torch Dataset, a frame, tensors, a
        dict of tensors, a data set of Hugging Face or its folder; see docs/data.md.
    task
        What is learned; None: what ``task.name`` says.
    public, test
        The server's own examples, or a function that returns them. Without test data, figures are sums over
        the nodes' own.
    target
        Name of the targets in frames and dicts, such as a column; empty: ``label``, ``target`` or ``y``.
    classes
        Names of the classes, or other groups, in the order of their numbers; empty: as many as the data have,
        or the texts that are their labels. A server that has no data of its own needs them.
    partition
        Spreads all examples over the clients, in place of ``data.partition``.
    transforms
        Varies training inputs on the client, seeded: a transform of torchvision, a function of one input, or
        one of a batch and a generator.
    inputs
        ``inputs(path)`` reads a file or folder for ``lethe predict``: the inputs alone, prepared as `data`
        prepares them, as tensors, a dict of them, a frame, or a Dataset. None: files are read as they are.

    Raises
    ------
    BadInput
        If one of them cannot be used.

    Examples
    --------
    >>> import torch
    >>> Project(model=nn.Linear(4, 2), data=lambda node: (torch.zeros(8, 4), torch.zeros(8).long())).name
    ''
    """

    model: Callable[[ModelSpec], nn.Module] | nn.Module | None = None
    data: Any = None
    task: Task | str | None = None
    public: Any = None
    test: Any = None
    target: str = ""
    classes: tuple[str, ...] = ()
    partition: Partition | None = None
    transforms: Callable[[Any], Any] | None = None
    name: str = ""
    inputs: Callable[[Path], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong before anything is run."""
        _require(self.model is None or callable(self.model), "model", self.model, "a function or a module")
        _require(not isinstance(self.classes, str), "classes", self.classes, "a list of names")
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if len(set(self.classes)) < len(self.classes):
            raise BadInput(f"lethe.Project: classes are {', '.join(self.classes)}; wanted each name once")
        allowed = "a Task, the name of one, or None"
        _require(self.task is None or isinstance(self.task, Task | str), "task", self.task, allowed)
        for name in ("partition", "transforms", "inputs"):
            given = getattr(self, name)
            _require(given is None or callable(given), name, given, "a function")
        if self.partition is not None and (self.data is None or self.by_node):
            raise BadInput("lethe.Project: partition spreads all examples, but data gives each node its own")

    @property
    def by_node(self) -> bool:
        """Whether `data` is a function of the node, not all examples together."""
        return _is_function(self.data) and bool(inspect.signature(self.data).parameters)

    def all_data(self) -> Any:
        """Return all examples together."""
        return self.data() if _is_function(self.data) else self.data


def given(thing: Any) -> Any:
    """Return what a project holds, or what the function in its place returns."""
    return thing() if _is_function(thing) else thing


def _is_function(thing: Any) -> bool:
    return inspect.isroutine(thing) or (callable(thing) and hasattr(thing, "func"))  # functools.partial


def _require(right: bool, name: str, given: object, allowed: str) -> None:
    if not right:
        raise BadInput(f"lethe.Project: {name} is of type {type(given).__name__}, allowed {allowed}")


def as_module(made: object) -> nn.Module:
    """Return what a project's `model` returned; BadInput if it is no module."""
    if not isinstance(made, nn.Module):
        kind = "nothing" if made is None else f"a {type(made).__name__}"
        raise BadInput(f"run.project: its model returned {kind}, wanted a torch.nn.Module")
    return made


def is_one_target(thing: object) -> bool:
    """Say whether a thing is the targets of a pair (inputs, targets), rather than a set of examples."""
    return isinstance(thing, Tensor | np.ndarray | list) or type(thing).__name__ == "Series"
