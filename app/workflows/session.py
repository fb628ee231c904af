"""A run at work: config, server data, model, grid and cohort, from a config or from a run folder."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from flwr.serverapp import Grid
from torch import Tensor

from app.client.node import pick_device
from app.config.run_config import RunConfig
from app.data import ServerData, Terms, clients_in, numbered
from app.data.record import check_record, project_folder_of
from app.forgettings.folder import unpruned
from app.forgettings.origin import forgotten_in
from app.project import Workload
from app.workflows.evaluator import Evaluator
from app.workflows.judging import Judge, criterion_of
from app.workflows.local_clients import local_grid
from app.workflows.scaling import learnt_scale, learnt_target_scale, read_scale, read_target_scale
from app.workflows.task_fit import check_server_data, check_task
from strategies.algorithm import Holdings
from strategies.client.backdoor import Trigger, default_trigger
from strategies.client.precision import check_precision
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.seeds import derive_seed
from strategies.core.settings import Scalar
from strategies.figures import Figures
from strategies.models import travelling
from strategies.models.batch_norm import recalibrated
from strategies.models.ensemble import ensemble_of, first_member
from strategies.plan import TrainingPlan
from strategies.registry import lookup
from strategies.runs.folder import CONFIG, RunFolder
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from strategies.server.grids import StartedGrid
from strategies.server.members import ClientInfo
from strategies.task import OutputSpec, Task
from strategies.tasks.choice import check_scored, figures_of, needs_scale, scale_of, scaled
from unlearning.audit.apart import HARD, POISONED
from unlearning.request import ForgetRequest

if TYPE_CHECKING:
    from app.simulation import LocalGrid

DEFAULT_CLIENTS = 10
"""Clients of a run in one process whose config does not say how many; `Session.of` puts it in."""
_OF_THE_JOB = ("run", "request")
_OF_THE_TRAINING = ("run.seed", "run.rounds", "run.precision")
_PLACES = ("data.root", "data.download", "data.path", "data.folder-of-clients", "data.columns")


@dataclass
class Session:
    """What the server side of a run works with.

    `brings_config` says that the clients behind a grid were started with another config, as it is where
    the run was begun before; `run_id` names the run to clients behind a grid of Flower's, empty before
    there is one; `nodes` is the node behind each client-id when the run was begun; `folder` is None for a
    new run; `forgotten` is what the run is trained without, as it went on from a forgetting; `notes` are
    about the data; `scale` are the means and deviations of ``data.scale = "federated"``, once known,
    `learnt_target_scale` the scale of ``task.scale-from = "federated"``; 0: not known. `_parameters` has
    the size of each parameter of the model that was built last, and whether it is trained.
    """

    config: RunConfig
    work: Workload
    server_data: ServerData
    brings_config: bool = False
    run_id: str = ""
    nodes: Mapping[str, int] = field(default_factory=dict)
    folder: RunFolder | None = None
    forgotten: tuple[ForgetRequest, ...] = ()
    notes: list[str] = field(default_factory=list)
    scale: tuple[float, ...] = ()
    learnt_target_scale: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _parameters: tuple[tuple[int, bool], ...] = ()

    @staticmethod
    def of(config: RunConfig, grid: Grid | None = None) -> "Session":
        """Load the server's side of a new run; without a grid, the clients start in this process tree.

        They are `DEFAULT_CLIENTS` then, if the config does not say how many.

        Raises
        ------
        BadInput
            If the data, the device or the attack cannot be had.
        """
        if grid is None and not config.data.clients:
            folder = config.data.folder_of_clients
            clients = len(clients_in(Path(folder).expanduser())) if folder else DEFAULT_CLIENTS
            config = config.with_overrides([f"data.clients={clients}"])
        return Session.load(config)

    @staticmethod
    def load(config: RunConfig, project_folder: str = "", recorded: bool = False) -> "Session":
        """Load the server's side of a run with a complete config; raises as `of` does.

        `project_folder` is where the run's project was found when it was begun, if the config is `recorded`.
        """
        check_precision(config.run.precision, pick_device(config.run.device))
        work = Workload.of(config, project_folder, recorded)
        config = work.config
        data = work.server_data().with_validation(config.data.validation_share, config.data_seed)
        session = Session(config, work, data)
        check_task(config, session.task)
        check_server_data(config, session.task, session.server_data)
        session.judge()  # Refuses a figure that the task does not have
        session.figures  # Refuses a metric that the task does not have  # noqa: B018
        if config.attack.kind != "none" and config.attack.target >= session.server_data.num_groups:
            classes = session.server_data.num_groups
            raise BadInput(
                f"attack.target: got {config.attack.target}, the data have classes 0 to {classes - 1}"
            )
        session.notes += session.server_data.notes
        return session

    @property
    def device(self) -> torch.device:
        """Where the server computes."""
        return pick_device(self.config.run.device)

    @cached_property
    def task(self) -> Task:
        """What is learned."""
        return scaled(self.work.task, self.target_scale)

    @cached_property
    def target_scale(self) -> float:
        """The residual from which on the score of a number is 0, by the data that tell it; 0: not told."""
        if self.config.task.scale_from == "federated":
            return self.learnt_target_scale
        own = self.server_data.test or self.server_data.public
        return 0.0 if own is None or not needs_scale(self.work.task) else scale_of(own.targets())

    @cached_property
    def figures(self) -> Figures:
        """What the model is judged by."""
        data = self.server_data
        found = figures_of(self.config.task, self.task, self.num_outputs, data.num_groups)
        return replace(found, cells=math.prod(data.input_shape))

    @property
    def num_outputs(self) -> int:
        """Size of the model's output."""
        return self.task.outputs(OutputSpec(self.server_data.num_groups))

    @property
    def federated_evaluation(self) -> bool:
        """Whether clients that have test data evaluate: as the config says, or as the server cannot."""
        privacy = self.config.privacy
        hidden = privacy.on or privacy.hides_updates or self.has_client_models
        unable = self.server_data.test is None or self.config.model.has_local_layers
        return self.config.run.federated_evaluation or (unable and not hidden)

    @property
    def plan(self) -> TrainingPlan:
        """The training plan that the config describes."""
        run = self.config.run
        return TrainingPlan(
            self.config.strategy,
            self.config.selection,
            run.rounds,
            run.seed,
            run.evaluate_every,
            self.federated_evaluation,
            privacy=self.config.privacy,
            holdings=self._holdings(),
            compression=self.config.compression,
            local_test_share=self.config.data.local_test_share,
            settle=self._settle,
            drop=self._drop,
            schedule_rounds=self.config.train.schedule_rounds or None,
            isolation=self.isolation,
        )

    @property
    def isolation(self) -> int:
        """How many groups of clients are trained apart; 1: there is one model for all."""
        return self.config.train.isolation

    @property
    def _drop(self) -> Drop:
        return Drop.joined(request.drop for request in self.forgotten)

    def in_training(self, cohort: Cohort) -> Cohort:
        """Return the clients that take part in training: those that were forgotten before do not."""
        if not self.forgotten:
            return cohort
        gone = [client_id for request in self.forgotten for client_id in request.clients]
        return cohort.without(gone).without_emptied(self._drop)

    def _holdings(self) -> Holdings:
        data = self.server_data
        return Holdings(
            lambda: self.member(self.config.run.seed).to(self.device),
            self.num_outputs,
            data.public,
            data.test,
            self.config.train,
            self.task,
            self.figures,
        )

    @property
    def has_client_models(self) -> bool:
        """Whether every client has a model of its own, and the server has none."""
        return not self.config.strategy.traits.one_model

    @property
    def has_personal_models(self) -> bool:
        """Whether every client keeps a personal model, or layers, besides the shared one."""
        return self.config.strategy.traits.personal_models or self.config.model.has_local_layers

    @property
    def trigger(self) -> Trigger | None:
        """The trigger of the configured attack."""
        if self.config.attack.kind == "none":
            return None
        return default_trigger(self.server_data.input_shape, self.config.attack.target)

    @property
    def attackers(self) -> tuple[str, ...]:
        """Client-ids that poison their data."""
        return self.config.attack.attackers

    @property
    def staged(self) -> dict[str, str]:
        """What the config makes of some clients' examples, ``poisoned`` or ``hard``, by client-id."""
        return dict.fromkeys(self.attackers, POISONED) | dict.fromkeys(self.config.hard.client_ids, HARD)

    def initial_state(self) -> wire.State:
        """Return the server's state before the first round: the initial model, or an empty consensus."""
        strategy, data = self.config.strategy, self.server_data
        initial = lookup(strategy.name).initial
        if self.federated_evaluation:
            check_scored(self.task)
        if initial is None:
            model = self.model()
            self.work.check_model(model, data.test if data.public is None else data.public, data.num_groups)
            return travelling.travelling(model)
        return initial(strategy, 0 if data.public is None else len(data.public), self.num_outputs)

    def model_json(self) -> dict[str, Any]:
        """Return the model's name and size as plain data; if clients have their own, the list of names."""
        names = lookup(self.config.strategy.name).model_names
        if names is not None:
            return {
                "name": "one per client",
                "parameters": 0,
                "names": list(names(self.config.strategy)),
            }
        if not self._parameters:
            self.model()
        parameters = sum(size for size, _ in self._parameters)
        frozen = sum(size for size, trained in self._parameters if not trained)
        return {
            "name": self.work.model_name,
            "parameters": parameters,
            **({"frozen": frozen} if frozen else {}),
        }

    def model(self) -> torch.nn.Module:
        """Return the run's model with its initial weights."""
        return self.model_of(self.config.run.seed)

    def model_of(self, seed: int) -> torch.nn.Module:
        """Return the run's model with the initial weights of a seed; what does not travel is the run's.

        It is the ensemble of the groups' models, where groups are trained apart: the first begins with the
        weights of the seed, each other with weights of its own.
        """
        seeds = [seed, *(derive_seed(seed, "group", group) for group in range(1, self.isolation))]
        return ensemble_of(lambda group: self.member(seeds[group]), self.isolation, self.task)

    def member(self, seed: int) -> torch.nn.Module:
        """Return what a client trains, with the initial weights of a seed; what does not travel is the run's.

        Weights that were given are the same for all seeds; of a run that was begun, its folder has them.
        """
        kept, data = self._kept_weights(), self.server_data
        model = self.work.model(data.input_shape, data.num_groups, seed, "" if kept else None)
        if not kept and seed != self.config.run.seed and travelling.staying(model):
            kept = self.staying
        model.load_state_dict(kept, strict=False)
        self._parameters = tuple((p.numel(), p.requires_grad) for p in model.parameters())
        return model

    def _kept_weights(self) -> wire.State:
        """Return what the run's folder has of the model that the seed does not decide."""
        if self.folder is None or not self.folder.has_initial:
            return {}
        given = self.folder.read_initial() if self.config.model.weights else {}
        return {**first_member(given, self.isolation), **self.folder.read_staying()}

    @cached_property
    def staying(self) -> wire.State:
        """The part of the model that does not travel; empty where clients have models of their own.

        It is the same in all groups that are trained apart.
        """
        return {} if self.has_client_models else travelling.staying(self.member(self.config.run.seed))

    @cached_property
    def _settle(self) -> Callable[[Tensor], Tensor] | None:
        """What sets the statistics of a model that were not trained; None: there are none."""
        public = self.server_data.public
        if self.config.model.batch_norm != "recalibrate" or public is None:
            return None
        model = self.member(self.config.run.seed).to(self.device)
        layout = travelling.layout_of(model)

        def settled(flat: Tensor) -> Tensor:
            wire.load_flat(model, flat, layout)
            return layout.flatten(recalibrated(model, public, self.task).state_dict())

        return lambda flat: torch.cat(
            [settled(each) if bool(each.any()) else each for each in torch.split(flat, layout.size)]
        )

    def evaluator(self) -> Evaluator | None:
        """Return the server's evaluation of a model; None without test data or without a whole model."""
        if self.server_data.test is None or self.has_client_models or self.config.model.has_local_layers:
            return None
        data = self.server_data
        return Evaluator(
            self.model().to(self.device), self.server_data.test, self.figures, self.trigger, data.validation
        )

    def judge(self) -> Judge | None:
        """Return what judges the rounds of a training; None if nothing depends on it."""
        run = self.config.run
        return None if run.keep == "last" and not run.stop else Judge(run, criterion_of(run, self.figures))

    @contextmanager
    def cohort(self, grid: Grid | None, min_clients: int | None = None) -> Iterator[Cohort]:
        """Connect to the clients behind a grid; without one, start them in this process tree.

        `min_clients` must answer; None: as many as the selection asks for.
        """
        with self._grid(grid) as used:
            cohort = Cohort(used, self.config.run.round_timeout)
            cohort.client_config.update(self._told(None if grid is None else used))
            cohort.recall(self.nodes)
            cohort = cohort.without(self.config.data.left_out)
            cohort.connect(self.config.selection.min_clients if min_clients is None else min_clients)
            self._check_left_out(cohort, everybody_is_there=grid is None)
            self._restore_tags(used)
            self._learn_scale(cohort)
            yield cohort

    def _learn_scale(self, cohort: Cohort) -> None:
        """Ask the clients for the scales that are to be theirs, and are not known yet."""
        if self.config.data.scale == "federated" and not self.scale:
            self.use_scale(learnt_scale(self.config, self.server_data.input_shape, cohort))
            cohort.client_config.update(self.terms.to_config())
        if self.config.task.scale_from == "federated" and not self.learnt_target_scale:
            self.use_target_scale(learnt_target_scale(self.config, cohort))
            cohort.client_config[wire.TARGET_SCALE] = self.target_scale

    def _told(self, grid: Grid | None) -> dict[str, wire.ConfigValue]:
        """Return what every message tells the clients of the run, besides the run config.

        `grid` is one whose clients were not started for this run alone; None: they were.
        """
        data = self.server_data
        told: dict[str, wire.ConfigValue | None] = {
            wire.TARGET_SCALE: self.target_scale or None,
            wire.CLASS_NAMES: list(data.class_names),
            wire.PROJECT: self.work.sha256 or None,
            wire.STAYING: travelling.fingerprint(self.staying) or None,
        }
        if self.has_client_models:
            public = self.work.shared_public(self.work.data_settings)
            told[wire.PUBLIC_HASH] = None if public is None else public.hash
        if grid is not None:
            told[wire.RUN_ID] = self.run_id or None
            if self.brings_config or self.config.run.config_file:
                told |= self._config_told(grid)
        if data.class_names == numbered(data.num_groups):
            del told[wire.CLASS_NAMES]
        said = {key: value for key, value in told.items() if value is not None}
        said |= {wire.NUM_GROUPS: data.num_groups, wire.INPUT_SHAPE: list(data.input_shape)}
        return {**said, **self.terms.to_config()}

    def _config_told(self, grid: Grid) -> dict[str, wire.ConfigValue]:
        """Return what tells clients the run config: its seed alone, if they were started with the rest."""
        if isinstance(grid, StartedGrid) and not self.staying:
            started = RunConfig.from_flat(dict(grid.started_with))
            if _but_for_the_seed(started) == _but_for_the_seed(self.config):
                return {wire.SEED: self.config.run.seed}
        return {wire.RUN_CONFIG: json.dumps(config_for_clients(self.config))}

    @property
    def terms(self) -> Terms:
        """What clients must know to read their own data."""
        return replace(self.server_data.terms, scale=self.scale)

    def use_scale(self, scale: tuple[float, ...]) -> None:
        """Bring the server's own examples, and from now on those of the clients, to a scale."""
        self.scale = scale
        self.server_data = self.server_data.scaled(self.terms)

    def use_target_scale(self, scale: float) -> None:
        """Judge by a scale of the targets from now on."""
        self.learnt_target_scale = scale
        for derived in ("target_scale", "task", "figures"):
            self.__dict__.pop(derived, None)

    def _restore_tags(self, grid: Grid) -> None:
        if self.folder is not None:
            from app.simulation.kept_models import restore_tags  # It imports the simulation

            restore_tags(self.folder, grid)

    def _check_left_out(self, cohort: Cohort, *, everybody_is_there: bool) -> None:
        """Refuse to leave out a client without a partition; over a network it may come later."""
        unknown = [i for i in self.config.data.left_out if i not in cohort.nodes]
        if unknown and everybody_is_there:
            raise BadInput(
                f"data.without: no client '{unknown[0]}'; known clients: "
                f"{', '.join(sorted(cohort.nodes, key=wire.client_sort_key))}"
            )

    @contextmanager
    def _grid(self, grid: Grid | None) -> Iterator[Grid]:
        if grid is not None:
            yield grid
            return
        with self.local_grid() as local:
            yield local

    def local_grid(self, copies: int = 1) -> "AbstractContextManager[LocalGrid]":
        """Return a grid of this run's clients in this process tree; see `local_clients.local_grid`."""
        return local_grid(self.config, self.folder, forks=self.work.is_in_python, copies=copies)


def clients_json(clients: Mapping[str, ClientInfo]) -> dict[str, Any]:
    """Return what the clients said of themselves, as plain data, without what they hide."""
    said: dict[str, Any] = {}
    for client_id, info in clients.items():
        said[client_id] = {} if info.known_examples is None else {"num-examples": info.num_examples}
        if info.label_counts:
            said[client_id]["label-counts"] = list(info.label_counts)
    return said


def open_session(folder: RunFolder, overrides: Sequence[str] = ()) -> Session:
    """Return the session of an existing run, with some keys of its config replaced.

    Raises
    ------
    BadInput
        If a key or its value is refused.
    """
    config = RunConfig.resolve(folder.path / CONFIG, overrides)
    session = Session.load(config, project_folder_of(folder), recorded=True)
    session.brings_config, session.folder, session.nodes = True, folder, folder.read_nodes()
    # The clients of a pruned run keep one state with the run that it came from
    session.run_id = unpruned(folder).run_id
    session.forgotten = forgotten_in(folder)
    session.notes[:] = check_record(
        folder, session.config, session.server_data.class_names, session.work.project_record
    )
    session.use_scale(read_scale(folder))
    session.use_target_scale(read_target_scale(folder))
    return session


def _but_for_the_seed(config: RunConfig) -> dict[str, Scalar]:
    """Return the keys of a run for its clients without the seed of training; that of the data is said."""
    told = {**config_for_clients(config), "data.seed": config.data_seed}
    return {key: value for key, value in told.items() if key != "run.seed"}


def config_for_clients(config: RunConfig) -> dict[str, Scalar]:
    """Return the keys of a run for its clients: not those of the job, nor those of places on a client's disk.

    All others are sent: a key that a client does not use may still contradict one that it uses.
    """
    return {
        key: value
        for key, value in config.to_flat().items()
        if key in _OF_THE_TRAINING or (key.partition(".")[0] not in _OF_THE_JOB and key not in _PLACES)
    }
