"""A project's examples: what its functions return, and how examples given together are spread."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from app.config.run_config import RunConfig
from app.config.settings import DataSettings
from app.data import Adapting, Columns, as_examples, client_id_of, partitioned
from app.data.scale import Scale
from app.data.split import Split, split_positions
from app.data.values import TargetKind
from app.project.loading import LoadedProject, called
from app.project.project import Node, given, is_one_target
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, GroupsOf, groups_of, in_memory
from strategies.core.settings import Scalar

_PARTS = {"train", "test"}


@dataclass(frozen=True, eq=False)
class ClientData:
    """A client's examples; `test` are those that it is measured on and never trains on, or None."""

    train: Examples
    test: Examples | None = None


@dataclass(frozen=True)
class ProjectData:
    """The examples of a project's run.

    Parameters
    ----------
    group_of
        Which group each target is of, as the task says.
    targets
        What the task makes of targets: classes, or what is given.
    """

    loaded: LoadedProject
    config: RunConfig
    group_of: GroupsOf
    targets: TargetKind

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
        node = node_of(node_config, self.settings.clients, self.config.run.seed)
        data = self.loaded.project.data
        return called(f"data of client {node.id} cannot be read", lambda: data(node))

    def _split(self, made: Any) -> ClientData:
        """Return train and test data of what ``data(node)`` returned."""
        if isinstance(made, Mapping) and set(made) <= _PARTS and "train" in made:
            train, test = made["train"], made.get("test")
        elif isinstance(made, tuple) and len(made) == 2 and not is_one_target(made[1]):
            train, test = made
        else:
            train, test = made, None
        return ClientData(
            self._examples(train, "data", trained=True),
            None if test is None else self._examples(test, "test data"),
        )

    def _part(self, node_config: Mapping[str, Scalar]) -> Examples:
        every, _ = _spread(self)
        count = self.settings.clients or int(str(node_config.get("num-partitions", 0)))
        client = client_id_of(node_config)
        if not client.isdecimal() or int(client) >= count:
            raise BadInput(
                f"run.project: its data are given together and spread over clients 0 to {count - 1}, and "
                f"there is a client {client!r}; give each node its own: data(node)"
            )
        return every.subset(_parts(self, count)[int(client)].tolist())

    def _examples(self, thing: Any, what: str, *, trained: bool = False, whole: bool = False) -> Examples:
        project, schema = self.loaded.project, self.settings.columns
        how = Adapting(
            target=project.target,
            targets=self.targets,
            class_names=project.classes,
            group_of=self.group_of,
            size=self.settings.size,
            columns=Columns.read(Path(schema).expanduser()) if schema else None,
            whole=whole,
            transform=project.transforms if trained else None,
            where=f"run.project: its {what}",
        )
        return called(f"its {what} cannot be read", lambda: as_examples(thing, how))


def node_of(node_config: Mapping[str, Scalar], clients: int, seed: int) -> Node:
    """Return what a project learns of the client whose data are asked for."""
    client_id = client_id_of(node_config)
    number = node_config.get("partition-id", client_id)
    index = int(str(number)) if str(number).isdecimal() else -1
    count = int(str(node_config.get("num-partitions", 0))) or clients
    return Node(index, count, client_id, node_config, seed)


@lru_cache(maxsize=2)
def _spread(data: ProjectData) -> tuple[Examples, Split]:
    """Return all examples and their split into the clients', the public and the test examples."""
    project = data.loaded.project
    every = data._examples(
        called("its data cannot be read", project.all_data), "data", trained=True, whole=True
    )
    groups = groups_of(every).numpy()
    strata = groups if groups.ndim == 1 else np.zeros(len(every), dtype=np.int64)
    share = 0.0 if project.test is not None else data.settings.test_share
    public = 0.0 if project.public is not None else data.settings.public_share
    settings = data.settings.model_copy(update={"test_share": share, "public": str(public)})
    return every, split_positions(strata, None, settings, data.config.run.seed)


@lru_cache(maxsize=4)
def _server_examples(data: ProjectData, name: str) -> Examples | None:
    project = data.loaded.project
    own = project.public if name == "public" else project.test
    if own is not None:
        return data._scaled(
            data._examples(called(f"its {name} data cannot be read", lambda: given(own)), name)
        )
    if project.data is None or project.by_node:
        return None
    every, split = _spread(data)
    positions = split.public if name == "public" else split.test
    if positions is None or not len(positions):
        return None
    return data._scaled(every.subset(positions.tolist()))


@lru_cache(maxsize=2)
def _measured(data: ProjectData) -> Scale:
    every, split = _spread(data)
    if len(every.input_shape) != 1:
        raise BadInput(
            f'data.scale: given "standard", which is for tables; the inputs have shape {every.input_shape}'
        )
    trained = np.sort(np.concatenate([split.clients, split.public]))
    return Scale.of(in_memory(every.subset(trained.tolist())).x)


@lru_cache(maxsize=4)
def _parts(data: ProjectData, count: int) -> list[np.ndarray]:
    every, split = _spread(data)
    mine = every.subset(split.clients.tolist())
    own = data.loaded.project.partition
    parts = partitioned(mine, mine.groups(), data.settings, count, data.config.run.seed, own)
    return [split.clients[part] for part in parts]
