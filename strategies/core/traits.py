"""What the rest of the program must know of an algorithm without importing it.

Rules of the run config, the session, the node, forgetting and the report read traits, never names. This file
and those that declare traits import no torch, so that the command line can judge a config at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from strategies.core.conditions import Condition
from strategies.core.settings import Scalar, Settings, hyphenated

Check = Callable[[Mapping[str, Scalar]], None]
"""Raises `BadInput` where a run config, flat and with every key, contradicts the algorithm."""


@dataclass(frozen=True)
class TaskNeed:
    """What a task must have: one vector of outputs per example, or class labels.

    Parameters
    ----------
    why
        What the algorithm does with it.
    instead
        What serves other tasks; empty: nothing.
    """

    what: Literal["vectors", "labels"]
    why: str
    instead: str = ""


@dataclass(frozen=True)
class Traits:
    """An algorithm's name, its keys, and what it can be combined with.

    The defaults describe federated averaging.

    Parameters
    ----------
    name
        As ``strategy.name`` has it. A name that ends with a colon stands for all that begin with it.
    settings
        The class that holds its keys of the section ``strategy``; None: it has none.
    fields
        Those fields of `settings` that it reads; None: all of them.
    conditions
        When its own keys have an effect.
    check
        What else a run config must not say.
    task_need
        What it needs of the task, by the run config, flat and with every key; None: nothing.
    averages
        Whether a weighted mean of the clients' updates is what moves one model.
    encodes
        Whether what the clients send may be compressed.
    noised
        Whether nothing leaves a client but its update, so that noise on the update protects it.
    adds_mean
        Whether that mean is added as it is, so that noise on the mean protects the clients.
    hidden
        What the server may do without: ``sum``, every single update and every single mean but one; ``mean``,
        every single update; or ``none``.
    asynchronous
        Whether the server takes a step without waiting for all that it has asked.
    everybody
        Whether every connected client has a place in each round.
    single_round
        Whether there is one round only.
    local_steps
        Whether clients train as the section ``train`` says.
    one_model
        Whether all clients train one model; else each has its own, and the server none.
    personal_models
        Whether each client keeps a model of its own besides the one that all share.
    shares_rounds
        Whether a round is more than each client's update and their mean, such as a second exchange, or parts
        of the model that are chosen for all, so that groups of clients cannot be trained apart in it.
    public_data
        What for the server needs public data in any case; empty: it does not.
    public_if
        The same by the run config, flat and with every key, where it depends on that; None: it does not.
    protecting
        Keys that a message to a client must leave as they were when the client was started, where another one
        protects it.
    noise_key
        The key above 0 with which its clients add noise of their own; empty: they add none.
    helps
        What it is advised against: ``drift`` of the clients, ``labels`` that are far apart, ``waiting`` for
        slow clients.
    only_retraining
        Why only retraining forgets; empty: other methods do as well.
    only_clients
        Why nothing but whole clients can be forgotten; empty: classes and examples can be, too.
    page
        The page of the documentation that tells more.
    """

    name: str
    settings: type[Settings] | None = None
    fields: tuple[str, ...] | None = None
    conditions: tuple[Condition, ...] = ()
    check: Check | None = None
    task_need: Callable[[Mapping[str, Scalar]], TaskNeed | None] | None = None
    averages: bool = True
    encodes: bool = True
    noised: bool = True
    adds_mean: bool = True
    hidden: Literal["none", "mean", "sum"] = "sum"
    asynchronous: bool = False
    everybody: bool = False
    single_round: bool = False
    local_steps: bool = True
    one_model: bool = True
    personal_models: bool = False
    shares_rounds: bool = False
    public_data: str = ""
    public_if: Callable[[Mapping[str, Scalar]], str] | None = None
    protecting: tuple[Condition, ...] = ()
    noise_key: str = ""
    helps: tuple[Literal["drift", "labels", "waiting"], ...] = ()
    only_retraining: str = ""
    only_clients: str = ""
    page: str = "docs/strategies.md"

    @property
    def is_family(self) -> bool:
        """Whether it stands for all names that begin with its own."""
        return self.name.endswith(":")

    @property
    def shown_name(self) -> str:
        """The name for people."""
        return f"{self.name}<ClassName>" if self.is_family else self.name

    def owns(self, name: str) -> bool:
        """Whether a value of ``strategy.name`` means this algorithm."""
        return name.startswith(self.name) if self.is_family else name == self.name

    @property
    def isolates(self) -> bool:
        """Whether groups of clients can be trained apart with it."""
        in_rounds = self.averages and not self.asynchronous and not self.single_round
        return in_rounds and self.one_model and not self.personal_models and not self.shares_rounds

    def public_need(self, flat: Mapping[str, Scalar]) -> str:
        """Return what for the server needs public data by a run config; empty: it does not."""
        return self.public_data or ("" if self.public_if is None else self.public_if(flat))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the run config that it reads."""
        own = self.fields or tuple(self.settings.model_fields if self.settings is not None else ())
        return tuple(f"strategy.{hyphenated(field)}" for field in own)
