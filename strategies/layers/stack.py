"""The server half of a training in its wrappers, and the order of these, in one list."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from strategies.algorithm import Members, PartsStrategy
from strategies.asynchronous.in_progress import InProgress
from strategies.asynchronous.settings import updates_from_sent
from strategies.core import wire
from strategies.layers.compression.server import CompressedStrategy, Copies
from strategies.layers.isolation.server import IsolatedGroups
from strategies.layers.privacy.server import ServerPrivacy
from strategies.layers.secagg.training import Federation, SecureSettings, SecureStrategy
from strategies.plan import TrainingPlan
from strategies.registry import lookup
from strategies.server.cohort import Cohort
from strategies.server.guard import GuardedStrategy, Reference
from strategies.server.selection_methods import LastKnownLoss
from strategies.server.wrapper import AddedEntries, StrategyWrapper, innermost

Build = Callable[[], Strategy]
"""Makes a server half."""
Layer = Callable[[Strategy], Strategy]
"""Wraps the server half in what must see each accepted update, for example the update log."""
Wrapper = TypeVar("Wrapper")


@dataclass(eq=False)
class Surroundings:
    """The state that a training's wrappers share with its loop; both keep it up to date.

    Parameters
    ----------
    build
        Makes the server half in place of the plan's; None: the plan does.
    layer
        What sees each accepted update; None: nothing.
    scope
        Returns the name of the present round in the list of faults.
    reject
        Told of each reply that is not used, with the reason.
    names
        Node id -> client-id.
    max_examples
        Node id -> how many examples the client described.
    keeps
        Client-id -> share of the neurons that the client can train.
    accepted
        Client-ids whose updates count in the round.
    """

    plan: TrainingPlan
    cohort: Cohort
    build: Build | None
    layer: Layer | None
    scope: Callable[[], str]
    reject: Callable[[Message, str], None]
    names: dict[int, str] = field(default_factory=dict)
    max_examples: dict[int, int] = field(default_factory=dict)
    keeps: dict[str, float] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the server takes steps without waiting; a method that brings its own strategy waits."""
        return self.build is None and self.plan.strategy.traits.asynchronous


class Stack:
    """A server half in its wrappers."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._made: list[Strategy] = []
        self.privacy: ServerPrivacy | None = None
        inner = around.plan.server_half() if around.build is None else around.build()
        for entry in ORDER:
            made = entry.wrap(self, inner)
            if made is not None:
                self._made.append(inner := made)
        if not isinstance(inner, StrategyWrapper):
            raise RuntimeError("the stack has no wrapper")
        self.strategy = inner

    @property
    def _isolated(self) -> IsolatedGroups | None:
        """The innermost half, if it trains groups apart."""
        half = innermost(self.strategy)
        return half if isinstance(half, IsolatedGroups) else None

    def _found(self, kind: type[Wrapper]) -> Wrapper | None:
        return next((made for made in self._made if isinstance(made, kind)), None)

    @property
    def parts(self) -> PartsStrategy | None:
        """The wrapper that knows which parts clients train; None if all train the whole model."""
        return self._found(PartsStrategy)

    @property
    def in_progress(self) -> InProgress | None:
        """The clients in progress of an asynchronous training; None for a training in rounds."""
        return self._found(InProgress)

    @property
    def known_losses(self) -> LastKnownLoss:
        """The wrapper that notes each client's loss."""
        found = self._found(LastKnownLoss)
        if found is None:
            raise RuntimeError("the stack has no wrapper that notes losses")
        return found

    def _logged(self, inner: Strategy) -> Strategy | None:
        return None if self._around.layer is None else self._around.layer(inner)

    def _completed(self, inner: Strategy) -> Strategy | None:
        around = self._around
        if around.build is not None or around.plan.build is not None:
            return None
        wrap = lookup(around.plan.strategy.name).around
        return None if wrap is None else wrap(inner, around.plan.server_side, self._members)

    def _in_parts(self, inner: Strategy) -> Strategy | None:
        plan = self._around.plan
        wrap = lookup(plan.strategy.name).parts
        return None if wrap is None else wrap(inner, plan.server_side, self._members)

    @property
    def _members(self) -> Members:
        around = self._around
        central = around.plan.privacy.unit == "client-central"
        return Members(around.names, around.keeps, central, around.cohort.mask)

    def _private(self, inner: Strategy) -> Strategy | None:
        plan = self._around.plan
        self.privacy = ServerPrivacy.of(plan.privacy, plan.selection, plan.planned_rounds, plan.seed)
        return None if self.privacy is None else self.privacy.around(inner, self._around.names)

    def _with_losses(self, inner: Strategy) -> Strategy:
        return LastKnownLoss(inner)

    def _checked(self, inner: Strategy) -> Strategy:
        privacy = self._around.plan.privacy
        if privacy.secure_aggregation:
            return self._unmasked(inner)
        return self._decrypted(inner) if privacy.encryption != "none" else self._guarded(inner)

    def _unmasked(self, inner: Strategy) -> Strategy:
        around, privacy = self._around, self._around.plan.privacy
        settings = SecureSettings(privacy.threshold, privacy.max_weight)
        federation = Federation(around.cohort, around.names, around.scope, around.accepted.append)
        return SecureStrategy(inner, settings, federation)

    def _decrypted(self, inner: Strategy) -> Strategy:
        from strategies.layers.encryption.server import EncryptedStrategy  # Needs an extra

        around = self._around
        return EncryptedStrategy(
            inner, around.cohort, around.names, around.max_examples, around.reject, around.accepted.append
        )

    def _guarded(self, inner: Strategy) -> Strategy:
        around = self._around
        return GuardedStrategy(
            inner,
            around.reject,
            around.max_examples,
            around.accepted.append,
            around.cohort.mask,
            self._reference_of if self.parts is None else self.parts.reference_of,
            self._staleness_of,
        )

    def _excluding(self, inner: Strategy) -> Strategy:
        plan, names = self._around.plan, self._around.names
        length = {wire.ROUNDS: plan.schedule_length}
        return AddedEntries(inner, lambda _, node_id: {**plan.drop.config(names[node_id]), **length})

    def _decoded(self, inner: Strategy) -> Strategy | None:
        around, compression = self._around, self._around.plan.compression
        if not compression.on:
            return None
        copies = Copies(compression, around.plan.seed, secrets.token_hex(8))
        return CompressedStrategy(
            inner,
            copies,
            around.names,
            around.reject,
            around.accepted,
            mask=around.cohort.mask,
            asynchronous=around.is_asynchronous,
        )

    def _unawaited(self, inner: Strategy) -> Strategy | None:
        around, plan = self._around, self._around.plan
        if not around.is_asynchronous:
            return None
        return InProgress(
            inner, plan.strategy, plan.selection, plan.seed, around.cohort, self.known_losses, around.accepted
        )

    def _reference_of(self, message: Message) -> Reference | None:
        """Return the model that a node's update is measured against; None: the present one."""
        if (isolated := self._isolated) is not None:
            return isolated.reference_of(message.metadata.src_node_id)
        if self.in_progress is None or not updates_from_sent(self._around.plan.strategy):
            return None
        return self.in_progress.reference_of(message.metadata.src_node_id)

    def _staleness_of(self, node_id: int) -> int:
        return 0 if self.in_progress is None else self.in_progress.staleness_of(node_id)


class Entry(NamedTuple):
    """A wrapper's place in the stack.

    Parameters
    ----------
    wrap
        Returns the wrapper around a strategy; None where the training needs none.
    reason
        Why it has this place.
    """

    wrap: Callable[[Stack, Strategy], Strategy | None]
    reason: str


ORDER = (
    Entry(Stack._logged, "the log holds what the server half adds, so it comes first"),
    Entry(Stack._completed, "what an algorithm does beyond that, such as sending further records"),
    Entry(Stack._in_parts, "makes updates of the whole model of those of its parts"),
    Entry(Stack._private, "noise goes on what is released, and accounts see every accepted reply"),
    Entry(Stack._with_losses, "selection uses the losses of accepted replies only"),
    Entry(Stack._checked, "nothing goes further in that was not checked, unmasked or decrypted"),
    Entry(
        Stack._excluding,
        "tells clients what to leave out, and how long a schedule is, in messages that are then encoded",
    ),
    Entry(Stack._decoded, "what arrives encoded is decoded before it is checked"),
    Entry(Stack._unawaited, "decides when a round has enough replies, whatever they hold"),
)
"""The wrappers from the inside out."""
