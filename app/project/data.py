"""A project's examples: what its functions return, and how examples given together are spread."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from app.config.run_config import RunConfig
from app.config.settings import DataSettings
from app.data import (
    UNLABELLED,
    Adapting,
    Columns,
    as_examples,
    client_id_of,
    columns_in,
    opened_folder,
    partitioned,
    sorted_names,
    texts_in,
)
from app.data.scale import Scale
from app.data.split import Split, split_positions
from app.data.values import TargetKind
from app.project.loading import LoadedProject, OwnCodeFailed, called
from app.project.project import Node, given, is_one_target
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, GroupsOf, groups_of, in_memory
from strategies.core.settings import Scalar

_TESTS = ("test", "val", "valid", "validation")
"""What the test data may be called beside ``train``."""
_DATA = "run.project: its data"


@dataclass(frozen=True, eq=False)
class ClientData:
    """A client's examples; `test` are those that it is measured on and never trains on, or None.

    `altered` are the positions in `train` that the run config poisons or makes hard, ascending, shape [k],
    int64; None where it does neither.
    """

    train: Examples
    test: Examples | None = None
    altered: Tensor | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the examples take."""
        return self.train.held_bytes + (0 if self.test is None else self.test.held_bytes)


@dataclass(frozen=True)
class ProjectData:
    """The examples of a project's run.

    Parameters
    ----------
    group_of
        Which group each target is of, as the task says.
    targets
        What the task makes of targets: classes, or what is given.
    class_names
        One per class, as the project or the server says; empty: not known.
    columns
        The schema of frames' columns, as the server says; None: what ``data.columns`` names here.
    """

    loaded: LoadedProject
    config: RunConfig
    group_of: GroupsOf
    targets: TargetKind
    class_names: tuple[str, ...] = ()
    columns: Columns | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names of the classes; learned from the data if their targets are texts.

        Learned from all data that lie in this process: those given together, the server's own, and in a
        simulation every client's.

        Raises
        ------
        BadInput
            If they cannot be read.
        """
        learns = not self.class_names and self.targets == "classes"
        return _texts(self) if learns else self.class_names

    @property
    def settings(self) -> DataSettings:
        """The section ``data``."""
        return self.config.data

    def server(self, name: str) -> Examples | None:
        """Return the server's own ``public`` or ``test`` examples; None if it has none.

        Raises
        ------
        BadInput
            If they cannot be read.
        """
        return _server_examples(self, name)

    def common_schema(self) -> Columns | None:
        """Return the schema of the project's frames; None if there is none that is the same for all."""
        if self.schema is not None:
            return self.schema
        together = self.loaded.project.data is not None and not self.loaded.project.by_node
        return _spread(self).columns if together else None

    def scale(self) -> Scale | None:
        """Return the scale of ``data.scale = "standard"``; None if inputs stay as they are."""
        return _measured(self) if self.settings.scale == "standard" else None

    def client(self, node_config: Mapping[str, Scalar]) -> ClientData:
        """Return a client's examples.

        Raises
        ------
        BadInput
            If they cannot be read, or the client is none of those that the examples are spread over.
        """
        if self.loaded.project.by_node:
            return self._split(self.of_node(node_config))
        return ClientData(self._scaled(self._part(node_config)))

    def _scaled(self, examples: Examples) -> Examples:
        """Return examples on the scale of all training data together, if that is asked for."""
        return examples if self.settings.scale != "standard" else _measured(self).scaled(examples)

    def of_node(self, node_config: Mapping[str, Scalar]) -> Any:
        """Return what the project's ``data`` says of a node, as it is."""
        node = node_of(node_config, self.settings.clients, self.config.data_seed)
        data = self.loaded.project.data
        return called(f"data of client {node.id} cannot be read", lambda: data(node))

    def _split(self, made: Any) -> ClientData:
        """Return train and test data of what ``data(node)`` returned."""
        train, test = parts_of(made)
        return ClientData(
            self._examples(train, "data", self.class_names, trained=True),
            None if test is None else self._examples(test, "test data", self.class_names),
        )

    def _part(self, node_config: Mapping[str, Scalar]) -> Examples:
        every = _spread(self).every
        count = self.settings.clients or int(str(node_config.get("num-partitions", 0)))
        client = client_id_of(node_config)
        if not client.isdecimal() or int(client) >= count:
            raise BadInput(
                f"run.project: its data are given together and spread over clients 0 to {count - 1}, and "
                f"there is a client {client!r}; give each node its own: data(node)"
            )
        return every.subset(_parts(self, count)[int(client)].tolist())

    @property
    def schema(self) -> Columns | None:
        """The schema of the columns of frames: the server's, or what ``data.columns`` names; None: none."""
        named = self.settings.columns
        return self.columns or (Columns.read(Path(named).expanduser()) if named else None)

    def _examples(
        self, thing: Any, what: str, names: tuple[str, ...], *, trained: bool = False, whole: bool = False
    ) -> Examples:
        project = self.loaded.project
        if trained and project.target and isinstance(thing, tuple) and len(thing) == 2:
            raise BadInput(
                f"lethe.Project(target=): given {project.target!r}, but its {what} is a pair (inputs, "
                "targets), which has no names; leave it out"
            )
        how = Adapting(
            target=project.target,
            targets=self.targets,
            class_names=names,
            group_of=self.group_of,
            size=self.settings.size,
            columns=self.schema,
            whole=whole,
            transform=project.transforms if trained else None,
            lowest=UNLABELLED if what == "public" else 0,
            where=f"run.project: its {what}",
        )
        return called(f"its {what} cannot be read", lambda: as_examples(thing, how))


def parts_of(made: Any) -> tuple[Any, Any]:
    """Return the training and test data of what a project's `data` gives; None for the latter if it has none.

    Raises
    ------
    BadInput
        If it is a dict of several sets, and which is which cannot be told.

    Examples
    --------
    >>> parts_of({"train": "a", "validation": "b"}), parts_of(["an item", "another"])
    (('a', 'b'), (['an item', 'another'], None))
    """
    made = opened_folder(made, _DATA)
    if isinstance(made, tuple) and len(made) == 2 and not is_one_target(made[1]):
        return made
    if not isinstance(made, Mapping) or ("train" not in made and all(map(is_one_target, made.values()))):
        return made, None
    tests = [name for name in made if name != "train"]
    if "train" not in made or len(tests) > 1 or not set(tests) <= {*_TESTS}:
        raise BadInput(
            f"{_DATA} is a {type(made).__name__} of {', '.join(map(str, made))}; allowed train alone, or "
            f"with one of {', '.join(_TESTS)}, which is the test data"
        )
    return made["train"], made[tests[0]] if tests else None


@contextmanager
def of_client(client: int) -> Iterator[None]:
    """Name the client of whose data something is said."""
    try:
        yield
    except OwnCodeFailed:
        raise
    except BadInput as error:
        raise BadInput(f"client {client}: {error}") from None


def node_of(node_config: Mapping[str, Scalar], clients: int, seed: int) -> Node:
    """Return what a project learns of the client whose data are asked for."""
    client_id = client_id_of(node_config)
    number = node_config.get("partition-id", client_id)
    index = int(str(number)) if str(number).isdecimal() else -1
    count = int(str(node_config.get("num-partitions", 0))) or clients
    return Node(index, count, client_id, node_config, seed)


@lru_cache(maxsize=1)
def _together(data: ProjectData) -> tuple[Any, Any]:
    """Return the training and test data that are given together, as the project gives them."""
    return parts_of(called("its data cannot be read", data.loaded.project.all_data))


@lru_cache(maxsize=2)
def _texts(data: ProjectData) -> tuple[str, ...]:
    """Return the different texts among all targets that lie in this process, in their order as classes."""
    project, found = data.loaded.project, set[str]()
    if project.data is None:
        return ()  # The classes are those of the built-in data
    if not project.by_node:
        found |= _texts_of(data, *_together(data))
    else:
        clients = data.settings.clients
        for i in range(clients):
            node = {"partition-id": i, wire.NUM_PARTITIONS: clients}
            with of_client(i):
                found |= _texts_of(data, *parts_of(data.of_node(node)))
    for own in (project.public, project.test):
        if own is not None:
            found |= _texts_of(data, called("its data cannot be read", partial(given, own)))
    return sorted_names(found)


def _texts_of(data: ProjectData, *things: Any) -> set[str]:
    target = data.loaded.project.target
    read = [partial(texts_in, thing, target, _DATA) for thing in things if thing is not None]
    return {text for each in read for text in called("its data cannot be read", each)}


@dataclass(frozen=True, eq=False)
class _Spread:
    """All examples, their split, other test data if there are some, and the schema of a frame."""

    every: Examples
    split: Split
    test: Examples | None
    columns: Columns | None


@lru_cache(maxsize=2)
def _spread(data: ProjectData) -> _Spread:
    project, names = data.loaded.project, data.names()
    train, test = _together(data)
    every = data._examples(train, "data", names, trained=True, whole=True)
    own = None if test is None else data._examples(test, "test data", names)
    columns = None if data.settings.columns else columns_in(train, project.target, _DATA)
    _together.cache_clear()  # Which may be as large as the examples
    if own is not None and project.test is not None:
        raise BadInput("lethe.Project: test is given, and data has test data as well; give one of the two")
    groups = groups_of(every).numpy()
    strata = groups if groups.ndim == 1 else np.zeros(len(every), dtype=np.int64)
    share = 0.0 if project.test is not None or own is not None else data.settings.test_share
    public = 0.0 if project.public is not None else data.settings.public_share
    settings = data.settings.model_copy(update={"test_share": share, "public": str(public)})
    return _Spread(every, split_positions(strata, None, settings, data.config.data_seed), own, columns)


@lru_cache(maxsize=4)
def _server_examples(data: ProjectData, name: str) -> Examples | None:
    project = data.loaded.project
    own = project.public if name == "public" else project.test
    if own is not None:
        made = called(f"its {name} data cannot be read", lambda: given(own))
        return data._scaled(data._examples(made, name, data.names()))
    if project.data is None or project.by_node:
        return None
    spread = _spread(data)
    if name == "test" and spread.test is not None:
        return data._scaled(spread.test)
    positions = spread.split.public if name == "public" else spread.split.test
    if positions is None or not len(positions):
        return None
    return data._scaled(spread.every.subset(positions.tolist()))


@lru_cache(maxsize=2)
def _measured(data: ProjectData) -> Scale:
    every, split = _spread(data).every, _spread(data).split
    if len(every.input_shape) != 1:
        raise BadInput(
            f'data.scale: given "standard", which is for tables; the inputs have shape {every.input_shape}'
        )
    trained = np.sort(np.concatenate([split.clients, split.public]))
    return Scale.of(in_memory(every.subset(trained.tolist())).x)


@lru_cache(maxsize=4)
def _parts(data: ProjectData, count: int) -> list[np.ndarray]:
    every, split = _spread(data).every, _spread(data).split
    mine = every.subset(split.clients.tolist())
    own = data.loaded.project.partition
    spread = partial(partitioned, mine, mine.groups(), data.settings, count, data.config.data_seed, own)
    parts = called("its partition fails", spread)
    return [split.clients[part] for part in parts]
