"""One client's side of a run: its settings, its data, its model.

A process may serve many clients and many messages, so it caches what is expensive: the parsed run config,
each client's examples, and one model per architecture whose weights every job overwrites.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from torch import Tensor, nn

from app.client.audit_answers import is_protected
from app.client.own_code import check_code, project_here
from app.client.policy import Policy, agreed, of_node
from app.client.server_config import config_from_server, parsed_config
from app.client.shared_model import SharedModel, part_of, shared_model
from app.client.staged import staged
from app.config.run_config import RunConfig
from app.data import Terms, client_id_of, numbered
from app.project import ClientData, LoadedProject, Workload, bind, project_of
from strategies.client.data_tags import DataState, block_tags, compare_tags, keep_tags
from strategies.client.holdout import held_out
from strategies.client.own_models import ClientState
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError, SettingsRefused
from strategies.core.examples import Examples
from strategies.core.kept import kept_within
from strategies.core.seeds import torch_generator
from strategies.core.settings import Scalar
from strategies.figures import Figures
from strategies.layers.compression.client import ClientLink
from strategies.layers.privacy.checks import planned_rounds
from strategies.layers.privacy.client import ClientPrivacy
from strategies.layers.privacy.scoring import Scoring
from strategies.models import travelling
from strategies.models.ensemble import ensemble_of, is_whole, whole_layout
from strategies.registry import lookup
from strategies.task import OutputSpec, Task
from strategies.tasks.choice import figures_of, scaled
from unlearning.forget_spec import ForgetSpec

if TYPE_CHECKING:
    from strategies.layers.encryption.ckks import Secret

LOCAL_LAYERS = "local-layers"
"""What the names of the records of its own layers in a client's state begin with."""
_KEPT_BYTES = 2**28
"""Of clients' examples that a process keeps; the data sets themselves are cached by app.data."""
_TAGS_BYTES = 2**24
"""Of the tags of clients' data that a process keeps."""


_PRESENT: "ContextVar[Node | None]" = ContextVar("present", default=None)


@dataclass(frozen=True)
class Node:
    """A client while it works on one message.

    `config` is the run config, joined with `policy`, what the node allows, except for the budget.
    `node_config` is what the node was started with, `message_config` the record ``config`` of the message,
    `state` what the client keeps between messages.
    """

    config: RunConfig
    node_config: Mapping[str, Scalar]
    message_config: Mapping[str, object]
    policy: Policy = field(default_factory=Policy)
    state: RecordDict = field(default_factory=RecordDict)

    @staticmethod
    def of(message: Message, context: Context) -> "Node":
        """Return the client that a message is for, whose settings and code are those of the server.

        Raises
        ------
        BadInput
            If the settings cannot be joined, or server and node have different code.
        """
        node = Node.agreed(message, context)
        node.check_code()
        return node

    @staticmethod
    def agreed(message: Message, context: Context) -> "Node":
        """Return the client that a message is for, with the server's and the node's settings joined.

        No data are read, and no code of the user's runs.

        `app.client.policy` says how they are joined. A run config that the message brings, as it does when a
        finished run is asked about under another run of Flower's, stands above the one that the app was
        started with, which it cannot weaken.

        Raises
        ------
        BadInput
            If the settings cannot be joined, or the node's policy cannot be read.
        """
        record = message.content.config_records.get(wire.CONFIG, ConfigRecord())
        if (present := _PRESENT.get()) is not None and present.is_for(record, context):
            return present
        policy = Policy.of(context.node_config)
        said = config_from_server(context.run_config, _brought(record))
        client_id = client_id_of(context.node_config)
        # Without a policy that needs the client-id, all clients share one cached result
        config = agreed(policy, said, client_id if policy.protects else "")
        policy.check_place(config.data, context.node_config)
        return Node(config, context.node_config, record, policy, context.state)

    def is_for(self, record: ConfigRecord, context: Context) -> bool:
        """Whether this is the client that a message with such a record ``config`` is for."""
        own = self.message_config is record and self.node_config is context.node_config
        return own and self.state is context.state

    @contextmanager
    def present(self) -> Iterator[None]:
        """Have `Node.agreed` find this client again while its message is handled."""
        token = _PRESENT.set(self)
        try:
            yield
        finally:
            _PRESENT.reset(token)

    def check_code(self) -> None:
        """Refuse to work for a server whose project is another one (see `app.client.own_code`)."""
        check_code(self.work, self.message_config)

    @property
    def client_id(self) -> str:
        """The client's stable name."""
        return client_id_of(self.node_config)

    @property
    def server_round(self) -> int:
        """The round of the message; 0 outside of rounds."""
        return int(str(self.message_config.get(wire.SERVER_ROUND, 0)))

    @property
    def rounds(self) -> int:
        """How many rounds the learning rate's schedule lasts; LetheError if the message says nonsense."""
        planned = self.config.train.schedule_rounds or self.config.run.rounds
        rounds = int(str(self.message_config.get(wire.ROUNDS, planned)))
        if rounds < 1:
            raise LetheError(f"a message says that the schedule lasts {rounds} rounds")
        return rounds

    @property
    def seed(self) -> int:
        """The run's seed, or that of a repetition."""
        return int(str(self.message_config.get(wire.SEED, self.config.run.seed)))

    def generator(self) -> torch.Generator:
        """Return the generator of this client in this round."""
        return torch_generator(self.seed, "client", self.client_id, "round", self.server_round)

    def examples(self) -> Examples:
        """Return all of the client's examples, as the run config stages them (see `app.client.staged`).

        Raises
        ------
        BadInput
            If the data do not fit the run's model.
        """
        examples = self._data.train
        shape, expected = list(examples.input_shape), self.message_config.get(wire.INPUT_SHAPE)
        if isinstance(expected, Sequence) and expected and shape != list(expected):
            raise BadInput(
                f"client {self.client_id}: inputs have shape {shape}, the model takes {list(expected)}"
            )
        return examples

    @property
    def altered(self) -> Tensor | None:
        """Which of all examples the run config poisons or makes hard, shape [n], bool; None: none of them."""
        data = self._data
        if data.altered is None:
            return None
        return torch.zeros(len(data.train), dtype=torch.bool).index_fill(0, data.altered, value=True)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the run's classes; empty if the message does not say how many there are."""
        names = self.message_config.get(wire.CLASS_NAMES)
        if isinstance(names, Sequence):
            return tuple(map(str, names))
        return numbered(self.num_groups)

    @property
    def terms(self) -> Terms:
        """What the message says of the data."""
        return Terms.of(self.message_config, self.class_names)

    def training_examples(self) -> Examples:
        """Return the examples that are neither held out nor, as the message says, to be left out."""
        examples = self.examples()
        classes = wire.config_list(self.message_config, wire.DROP_CLASSES)
        indices = wire.config_list(self.message_config, wire.DROP_INDICES)
        if not classes and not indices and not self.config.data.local_test_share:
            return examples
        return examples.split(examples.chosen(classes, indices) | self.held_out())[1]

    def check_scale(self) -> None:
        """Refuse to train on a table that the server has not said the scale of.

        Raises
        ------
        SettingsRefused
            If there is to be one, and the message brings none.
        """
        if self.config.data.scale == "federated" and not self.terms.scale:
            raise SettingsRefused(
                'data.scale: "federated", but the message brings no scale; nothing is trained'
            )

    def test_examples(self) -> Examples:
        """Return the examples that the client is measured on; perhaps none."""
        own = self.own_test
        return self.examples().split(self.held_out())[0] if own is None else own

    @property
    def own_test(self) -> Examples | None:
        """The test data that came with the client's own; None: it holds examples out, or has none."""
        return self._data.test

    def held_out(self) -> Tensor:
        """Return which examples the client is measured on and never trains on, shape [n], bool."""
        return held_out(self.config.data.local_test_share, self.client_id, len(self.examples()))

    def forget_spec(self) -> ForgetSpec:
        """Return what the message wants forgotten, among the examples that the client trained on."""
        aside = self.held_out().nonzero().flatten().tolist()
        return ForgetSpec.from_config(self.message_config).without(aside)

    def keep_tags(self, state: RecordDict) -> None:
        """Keep tags of the client's data in its state, where the message belongs to a training."""
        if self.message_config.get(wire.KEEP_TAGS):
            keep_tags(state, len(self.examples()), self._tags)

    def data_state(self, state: RecordDict) -> DataState:
        """Return whether the client's data are those that it trained on."""
        return compare_tags(state, self._tags)

    def _tags(self, key: bytes, count: int) -> bytes:
        return _tags(self.work, tuple(sorted(self.node_config.items())), self.terms, key, count)

    def model(self, arrays: ArrayRecord | None = None, *, to_read: bool = False) -> nn.Module:
        """Return the run's model on the run's device, with the given weights, or anew with the initial ones.

        With given weights, all clients of a process share one model, which must not be kept beyond the
        message. If the message has a mask, the model holds it; if it names neurons, it consists of those.
        With `to_read`, whoever is given the model promises not to train it (see `SharedModel.hold`).
        """
        if arrays is None:
            return self._whole_model().to(self.device)
        shared = self.shared
        travelling.put_back(shared.changeable)
        if is_whole(arrays, shared.layout, self.config.train.isolation):
            return self._ensemble(arrays)
        positions = self.message_config.get(wire.POSITIONS)
        if isinstance(positions, bytes):
            return part_of(shared.model, positions, arrays)
        flat = wire.flat_of(arrays, shared.layout)
        shared.hold(flat if shared.mask is None else flat * shared.mask, to_read=to_read)
        if shared.local:
            self._local_layers.read(shared.local)
        return shared.model

    def _ensemble(self, arrays: ArrayRecord) -> nn.Module:
        """Return the run's model where groups of clients were trained apart, with the given weights."""
        model = self._whole_model()
        layout = whole_layout(self.shared.layout, self.config.train.isolation)
        wire.load_flat(model, wire.flat_of(arrays, layout), layout)
        return model.to(self.device)

    def _whole_model(self) -> nn.Module:
        """Return the run's model anew: an ensemble, where groups of clients are trained apart."""
        sizes, seed, weights = self._shape_and_groups, self.config.run.seed, self._weights
        return ensemble_of(
            lambda _: self.work.model(*sizes, seed, weights), self.config.train.isolation, self.task
        )

    def keep_local(self, model: nn.Module) -> None:
        """Keep the layers of a trained model that stay with the client, if it has any."""
        if self.shared.local:
            self._local_layers.write(travelling.local(model))

    def record_of(self, model: nn.Module) -> ArrayRecord:
        """Return what travels of a trained model."""
        layout = self.shared.layout_of(model)
        return wire.FlatRecord(layout.flatten(model.state_dict()), layout)

    @property
    def _local_layers(self) -> ClientState:
        return ClientState(self.state, str(self.message_config.get(wire.LINEAGE, "")), LOCAL_LAYERS)

    @property
    def _weights(self) -> str:
        """Where initial weights lie on this node; empty if it has none, and the server's will do."""
        if own := self.own("model.weights"):
            return str(Path(str(own)).expanduser())
        if not (named := self.config.model.weights):
            return ""
        return "" if self.policy.protects or not Path(named).exists() else named

    def prune(self, model: nn.Module) -> None:
        """Set the weights pruned by the message's mask to zero: private training adds noise to them."""
        if (mask := self.shared.mask) is not None:
            layout = self.shared.layout
            wire.load_flat(model, layout.flatten(model.state_dict()) * mask, layout)

    def check_model(self) -> None:
        """Refuse a model whose parts that do not travel are not the server's, or that the data do not fit.

        Raises
        ------
        BadInput
            Naming what differs, as far as that can be said.
        """
        expected = str(self.message_config.get(wire.STAYING, ""))
        self.work.check_model(self.shared.model, self.examples(), self.num_groups)
        if expected and self.shared.staying != expected:
            shared = self.shared
            travelling.put_back(shared.changeable)
            wrong = travelling.first_difference(travelling.staying(shared.model), expected)
            raise SettingsRefused(
                f"model.name: the parts of '{self.work.model_name}' that do not travel are not those "
                f"of the server: {wrong}; every side needs the same model and the same model.weights"
            )

    @property
    def task(self) -> Task:
        """What is learned."""
        return scaled(self.work.task, self._target_scale)

    @property
    def _target_scale(self) -> float:
        return float(str(self.message_config.get(wire.TARGET_SCALE, 0.0)))

    @property
    def figures(self) -> Figures:
        """What the model is judged by."""
        return _figures(self.work, self._target_scale, self.sizes[1], self.num_groups)

    @cached_property
    def work(self) -> Workload:
        """What the run trains, with the project of this node's own process."""
        return _workload(self.config, project_here(self.config, self.own("run.project")))

    @property
    def num_groups(self) -> int:
        """Number of groups of the run's data, such as classes; 0 where the message does not say."""
        return int(str(self.message_config.get(wire.NUM_GROUPS, 0)))

    @property
    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Shape of one input, and size of the model's output."""
        shape, num_groups = self._shape_and_groups
        return shape, self.task.outputs(OutputSpec(num_groups))

    @property
    def _shape_and_groups(self) -> tuple[tuple[int, ...], int]:
        return tuple(wire.config_list(self.message_config, wire.INPUT_SHAPE)), self.num_groups

    @property
    def _data(self) -> ClientData:
        return _data(self.work, tuple(sorted(self.node_config.items())), self.terms)

    @cached_property
    def shared(self) -> SharedModel:
        """The run's model in this process."""
        packed = self.message_config.get(wire.MASK, b"")
        mask = packed if isinstance(packed, bytes) else b""
        return shared_model(self.work, self._weights, self.device, self._shape_and_groups, mask)

    def link(self, content: RecordDict, state: RecordDict) -> ClientLink | None:
        """Return how the message's model is decoded and the reply encoded; None if models travel as they are.

        `content` is the message, `state` the client's ``context.state``.
        """
        if not ClientLink.wanted(content):
            return None
        shared = self.shared
        return ClientLink(self.config.compression, content, state, shared.layout, shared.mask)

    def privacy(self, state: RecordDict) -> ClientPrivacy | None:
        """Return the client's privacy, with its account in `state`; None if the run is not private."""
        settings = self.config.privacy
        if not settings.on:
            return None
        return ClientPrivacy(
            settings,
            settings.budget_of(self.client_id, self.policy.epsilon),
            planned_rounds(self.config.run.rounds, self.config.selection),
            int(str(self.message_config.get(wire.PRIOR_ATTEMPTS, 0))),
            state,
            scoring_of(self.config),
            asked_epsilon(self.config),
        )

    def secret(self) -> "Secret | None":
        """Return the key that updates are encrypted with; None if they are not encrypted.

        Raises
        ------
        BadInput
            If this client has no such key.
        """
        if self.config.privacy.encryption == "none":
            return None
        from app.client.encryption_key import secret_in

        path = self.own("privacy.encryption-key") or self.config.privacy.encryption_key
        place = Path(str(path)).expanduser()
        try:
            return secret_in(place)
        except BadInput as error:  # Said without the place on the node
            raise SettingsRefused(str(error).replace(str(place), "privacy.encryption-key")) from None

    def own(self, key: str) -> Scalar | None:
        """Return a setting of the node's own (see `of_node`)."""
        return of_node(self.node_config, key)

    @property
    def is_secure(self) -> bool:
        """Whether the client answers with masked vectors only."""
        return self.config.privacy.secure_aggregation or self.config.run.workflow == "analytics"

    @property
    def protects_data(self) -> bool:
        """Whether run or node promise that nothing exact of the data leaves."""
        return self.is_secure or self.policy.protects or is_protected(self.config)

    @property
    def hides_size(self) -> bool:
        """Whether the client keeps the number of its examples secret."""
        return self.is_secure or self.config.privacy.unit.startswith("client")

    @property
    def device(self) -> torch.device:
        """Where the client computes."""
        return pick_device(self.config.run.device)


def asked_epsilon(config: RunConfig) -> float:
    """Return the ε of the question before a private training; 0 if there is none."""
    asks = config.analytics.enabled or config.task.scale_from == "federated"
    return config.analytics.epsilon if asks and config.privacy.on else 0.0


def scoring_of(config: RunConfig) -> Scoring | None:
    """Return how the clients of a run may choose what they train by their own data; None if they may not."""
    return lookup(config.strategy.name).scoring(config.strategy, config.run.rounds, config.selection)


def pick_device(wanted: str) -> torch.device:
    """Return the device for ``run.device``.

    Raises
    ------
    BadInput
        If ``cuda`` is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BadInput("run.device: got 'cuda', but torch sees no CUDA device; use 'cpu' or 'auto'")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _brought(record: ConfigRecord) -> dict[str, Scalar]:
    """Return the run config that a message brings; empty if it brings none."""
    if wire.RUN_CONFIG not in record:
        return {}
    try:
        brought = json.loads(str(record.get(wire.RUN_CONFIG, "{}")))
    except (ValueError, RecursionError):
        brought = None
    if not isinstance(brought, dict):
        raise BadInput(f"{wire.RUN_CONFIG}: expected a JSON object")
    return brought


def prepare(run_config: Mapping[str, Scalar]) -> None:
    """Load the data that all clients of a simulation need, once, before worker processes are forked."""
    config = parsed_config(tuple(sorted(run_config.items())))
    if (project := project_of(config)) is not None:
        bind(project)
    work = Workload(config, project)
    work.prepare()
    if config.run.federated_evaluation or config.data.local_test_share:
        figures_of(config.task, work.task, 2, 2)  # Loads the library of its metrics, if there are any
    if config.privacy.encryption != "none":
        from app.client.encryption_key import make_key, secret_in

        path = Path(config.privacy.encryption_key).expanduser()
        make_key(path)
        secret_in(path)


@lru_cache(maxsize=8)
def _workload(config: RunConfig, loaded: LoadedProject | None) -> Workload:
    return Workload(config, loaded)


@lru_cache(maxsize=4)
def _figures(work: Workload, scale: float, num_outputs: int, num_groups: int) -> Figures:
    return figures_of(work.config.task, scaled(work.task, scale), num_outputs, num_groups)


def _held_bytes(data: ClientData) -> int:
    return data.held_bytes


def _length(tags: bytes) -> int:
    return len(tags)


@kept_within(_KEPT_BYTES, _held_bytes)
def _data(work: Workload, node_items: tuple[tuple[str, Scalar], ...], terms: Terms) -> ClientData:
    node_config, config = dict(node_items), work.config
    found = work.client_data(node_config, terms)
    return staged(found, config, client_id_of(node_config))


@kept_within(_TAGS_BYTES, _length)
def _tags(
    work: Workload,
    node_items: tuple[tuple[str, Scalar], ...],
    terms: Terms,
    key: bytes,
    count: int,
) -> bytes:
    """Return the tags of a client's first examples, made once per process."""
    return block_tags(_data(work, node_items, terms).train, key, count)
