"""What a run trains: the model, the data and the task of a project, or those that the run config names."""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor, nn

from app.config.run_config import RunConfig
from app.config.settings import DataSettings
from app.data import (
    OwnPublic,
    PublicData,
    ServerData,
    Terms,
    load_client_data,
    load_client_test,
    load_public,
    load_server_data,
    numbered,
)
from app.data.columns import Columns
from app.data.forms import ONE, Form, forms_of
from app.data.labels import notes_on_gaps
from app.data.split import scale_of
from app.data.values import TargetKind, finite
from app.models.built_in import OWN, build_model
from app.models.checks import (
    Expected,
    check_built_in_task,
    check_model,
    check_task,
    outputs_of_two,
    two_examples,
)
from app.project.data import ClientData, ProjectData, of_client
from app.project.keys import check_data_keys
from app.project.loading import LoadedProject, called, project_of
from app.project.project import ModelSpec, Project, as_module
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples, Inputs, least_groups
from strategies.core.seeds import torch_generator
from strategies.core.settings import Scalar
from strategies.task import CLASSIFICATION, OutputSpec, Task
from strategies.tasks.choice import scaled, task_of

_NOTHING = Project()
VARIED = "lethe.Project(transforms=): the model"


@dataclass(frozen=True)
class Workload:
    """What a run trains.

    Parameters
    ----------
    loaded
        The run's project; None: all is built in.
    """

    config: RunConfig
    loaded: LoadedProject | None = None

    @staticmethod
    def of(config: RunConfig, folder: str = "", recorded: bool = False) -> "Workload":
        """Return that of a run, in a process that the user started; `folder` is where its project was found.

        A `recorded` config, of a run that was begun, may hold keys without effect: nothing is lost by them.

        Raises
        ------
        BadInput
            If the project cannot be loaded, or it contradicts the config.
        """
        loaded = project_of(config, folder)
        if loaded is not None and not config.run.project:
            config = config.with_overrides([f"run.project={loaded.reference}"])
        work = Workload(config, loaded)
        if not recorded:
            work.check()
        return work

    @property
    def project(self) -> Project:
        """The project; one without anything where all is built in."""
        return _NOTHING if self.loaded is None else self.loaded.project

    @property
    def has_data(self) -> bool:
        """Whether the examples are the project's."""
        return self.project.data is not None

    @property
    def sha256(self) -> str:
        """Hash of the project's source; empty where there is none."""
        return "" if self.loaded is None else self.loaded.sha256 or self.loaded.reference

    @property
    def is_in_python(self) -> bool:
        """Whether only this process has the project."""
        return self.loaded is not None and self.loaded.in_python

    @property
    def project_record(self) -> dict[str, str]:
        """What a run records of its project; empty where there is none."""
        loaded = self.loaded
        return {} if loaded is None else {"folder": loaded.folder, "sha256": self.sha256}

    def check(self) -> None:
        """Refuse keys of the run config that have no effect on where the data come from.

        Raises
        ------
        BadInput
            Naming the key.
        """
        check_data_keys(self.config, self.project, self.data_settings.targets)
        if not self.has_data:
            return
        scale = self.config.data.scale
        if scale == "standard" and self.project.by_node:
            raise BadInput(
                'data.scale: given "standard", which takes all data in one place, but the project gives each '
                'node its own; allowed "federated" or "none"'
            )
        if scale != "none" and self.project.transforms is not None:
            raise BadInput(
                f'data.scale: given "{scale}", which is for tables, but the project varies its inputs by '
                'transforms; allowed "none", or scale them in data'
            )

    @cached_property
    def task(self) -> Task:
        """What is learned."""
        return task_of(self.config.task, self.project.task)

    @property
    def data_settings(self) -> DataSettings:
        """The section ``data``, with what the task decides: whether targets are classes or numbers."""
        data = self.config.data
        if data.targets != "auto":
            return data
        return data.model_copy(update={"targets": "classes" if self.task.has_groups else "numbers"})

    def server_data(self) -> ServerData:
        """Return the server's own data, and the properties of the federation's.

        Raises
        ------
        BadInput
            If something cannot be read.
        """
        if not self.has_data:
            return self._with_own(load_server_data(self.data_settings, self.config.data_seed))
        return called("its data cannot be read", self._own_server_data)

    def _own_server_data(self) -> ServerData:
        data = self._data
        public, test, names = data.server("public"), data.server("test"), data.names()
        seen = self._seen(public, test)
        _check_shapes(public, test, seen[-1].input_shape if seen else ())
        num_groups = len(names) or max((least_groups(part) for part in seen), default=0)
        columns = data.schema
        forms = forms_of(seen[0].batch(torch.arange(min(1, len(seen[0]))))[0]) if seen else {}
        if not seen and columns is not None:
            forms = {ONE: Form((len(columns.names),))}
        shape = forms[ONE].shape if ONE in forms else ()
        counted = self.task.labelled and self.config.data.clients and not names
        notes = notes_on_gaps((each.targets() for each in seen), num_groups) if counted else ()
        names = names or numbered(num_groups)
        return ServerData(public, test, num_groups, shape, self.name, names, notes, columns, forms=forms)

    def schema(self, server: ServerData) -> Columns | None:
        """Return how the columns of the run's tables become numbers; None where no schema holds for all."""
        return self._data.common_schema() if self.has_data else server.columns

    def standard_scale(self) -> tuple[float, ...]:
        """Return means and deviations of ``data.scale = "standard"``; empty if it is not asked for."""
        found = self._data.scale() if self.has_data else scale_of(self.data_settings, self.config.data_seed)
        return () if found is None else (*found.mean.tolist(), *found.deviation.tolist())

    def own_test(self) -> Examples | None:
        """Return the test data of a project that brings the data; None if it has none for everybody."""
        return self._data.server("test")

    def shared_public(self, settings: DataSettings) -> PublicData | OwnPublic | None:
        """Return the public data in the form in which every side holds them; None if there are none.

        `settings` say where they lie, if they are not the project's.

        Raises
        ------
        BadInput
            If they cannot be read.
        """
        brought = self.has_data or self.project.public is not None
        return _own_public(self) if brought else load_public(settings, self.config.data_seed)

    @property
    def name(self) -> str:
        """What the data are called in reports."""
        loaded = self.loaded
        if loaded is None:
            return self.config.data.name
        return loaded.project.name or loaded.reference.partition(":")[0].partition(".")[0]

    def client_data(self, node_config: Mapping[str, Scalar], terms: Terms) -> ClientData:
        """Return a client's examples, and those that it is measured on if it has some of its own.

        `terms` are what the server says of the data.

        Raises
        ------
        BadInput
            If they cannot be read, or do not fit the run.
        """
        if self.has_data:
            found = self._data_of(terms).client(node_config)
        else:
            data = self.data_settings
            train = load_client_data(data, self.config.data_seed, node_config, terms)
            found = ClientData(train, load_client_test(data, node_config, terms))
        test = None if found.test is None else terms.scaled(found.test)
        return ClientData(terms.scaled(found.train), test)

    def model(
        self, input_shape: tuple[int, ...], num_groups: int, seed: int, weights: str | None = None
    ) -> nn.Module:
        """Return the model with the initial weights of a seed, on the CPU, in training mode.

        `weights` stands in place of ``model.weights``; None: that holds.

        Raises
        ------
        BadInput
            If there is no such model, or it cannot take such inputs.
        """
        spec = ModelSpec(
            input_shape, self.task.outputs(OutputSpec(num_groups)), num_groups, self.config.to_flat()
        )
        make = None if self.project.model is None else lambda: self._own_model(spec)
        settings = self.config.model
        if weights is not None:
            settings = settings.model_copy(update={"weights": weights})
        free = not self.task.labelled
        return build_model(settings, input_shape, spec.num_outputs, seed, make, any_outputs=free)

    def check_model(self, model: nn.Module, examples: Examples | None, num_groups: int) -> None:
        """Refuse a model that does not take the examples, or a task that does not judge what it says of them.

        Built-in models classify built-in data.

        Raises
        ------
        BadInput
            Naming the shape and the layer, or the task.
        """
        built_in = self.project.model is None and not self.has_data and self.task is CLASSIFICATION
        if built_in or examples is None or not len(examples):
            return
        known = self.task.labelled and num_groups > 0
        outputs = (self.task.outputs(OutputSpec(num_groups)),) if known else None
        subject = OWN if self.project.model is not None else f"model.name: '{self.config.model.name}'"
        inputs, targets = two_examples(examples)
        expected = Expected(subject, inputs, outputs)
        check_model(model, expected)
        if self.project.transforms is not None:
            check_model(model, replace(expected, subject=VARIED, inputs=self._varied(examples)))
        if self.task is not CLASSIFICATION:
            self._check_task(outputs_of_two(model, expected), targets)

    def _varied(self, examples: Examples) -> Inputs:
        """Return two inputs as the project's transforms vary them."""
        index, generator = torch.tensor([0, min(1, len(examples) - 1)]), torch_generator(0, "two inputs")
        read = partial(examples.training_batch, index, generator)
        inputs = called("its transforms fail on two inputs", read)[0]
        for part in (inputs,) if isinstance(inputs, Tensor) else inputs.values():
            finite(part, "lethe.Project(transforms=)")
        return inputs

    def _check_task(self, outputs: Tensor, targets: Tensor) -> None:
        if isinstance(self.project.task, Task):
            called("its task fails on two examples", lambda: check_task(self.task, outputs, targets))
        else:
            check_built_in_task(scaled(self.task, 1.0), outputs, targets, self.name)

    @property
    def model_name(self) -> str:
        """What the model is called in reports."""
        own = self.project.model
        return self.config.model.name if own is None else getattr(own, "__name__", type(own).__name__)

    def prepare(self) -> None:
        """Load the data that all clients of a simulation need, so that forked workers share them."""
        config = self.config
        first = {"partition-id": 0, wire.NUM_PARTITIONS: config.data.clients}
        if self.has_data and not self.project.by_node:
            self._data.client(first)
        elif not self.has_data and not config.data.path and not config.data.folder_of_clients:
            load_client_data(self.data_settings, config.data_seed, first)
        if not config.strategy.traits.one_model:
            self.shared_public(self.data_settings)

    @property
    def _data(self) -> ProjectData:
        return self._data_named(())

    def _data_of(self, terms: Terms) -> ProjectData:
        """Return the project's examples, as the server says of those that each node has for itself."""
        if not self.project.by_node:
            return self._data
        return replace(self._data_named(terms.class_names), columns=terms.columns)

    def _data_named(self, names: tuple[str, ...]) -> ProjectData:
        """Return the project's examples, with names of the classes where it says none itself."""
        if self.loaded is None:
            raise LetheError("there is no project")
        targets: TargetKind = "classes" if self.task.labelled else "given"
        return ProjectData(self.loaded, self.config, self.task.groups, targets, self.project.classes or names)

    def _own_model(self, spec: ModelSpec) -> nn.Module:
        own = self.project.model
        if isinstance(own, nn.Module):
            return copy.deepcopy(own)
        return called("its model cannot be built", lambda: as_module(None if own is None else own(spec)))

    def _with_own(self, built_in: ServerData) -> ServerData:
        """Return built-in data with the project's public and test data in their place."""
        if self.loaded is None:
            return built_in
        data = self._data_named(built_in.class_names)
        public, test = (data.server(name) for name in ("public", "test"))
        _check_shapes(public, test, built_in.input_shape)
        return replace(built_in, public=public or built_in.public, test=test or built_in.test)

    def _seen(self, *own: Examples | None) -> list[Examples]:
        """Return the examples from which the server learns shape and classes.

        Its own; in a simulation, all clients' as well, because a class may lie with one client alone.
        """
        seen = [examples for examples in own if examples is not None]
        clients = self.config.data.clients
        if clients and (not seen or not self.project.classes):
            data = self._data_named(self._data.names() if self.project.by_node else ())
            everybody = ({"partition-id": i, wire.NUM_PARTITIONS: clients} for i in range(clients))
            for node in everybody:
                with of_client(node["partition-id"]) if self.project.by_node else nullcontext():
                    seen.append(data.client(node).train)
        return seen


def _check_shapes(public: Examples | None, test: Examples | None, shape: tuple[int, ...]) -> None:
    """Refuse examples of the project's whose inputs have another shape than the others."""
    for name, own in (("public", public), ("test", test)):
        if own is not None and own.input_shape != shape:
            raise BadInput(
                f"lethe.Project({name}=): inputs have shape {own.input_shape}, other examples have {shape}; "
                "wanted the same"
            )


@lru_cache(maxsize=2)
def _own_public(work: Workload) -> OwnPublic | None:
    held = work._data.server("public")
    return None if held is None else OwnPublic(held)
