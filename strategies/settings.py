"""Settings of federated training: one frozen, self-checking class per section of the run config.

A field ``local_epochs`` of the section ``train`` is the key ``train.local-epochs`` everywhere outside Python.
Defaults are not repeated in the docstrings; each says the unit and, where there is one, the neutral value:
the value at which the setting changes nothing.
"""

import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from strategies.asynchronous.settings import NAMES as ASYNCHRONOUS, AsyncSettings
from strategies.clock_settings import check_speeds
from strategies.coded_gd.settings import CodedSettings
from strategies.core.settings import Scalar, Settings, hyphenated, split_list
from strategies.fedmd.settings import FedMDSettings
from strategies.gossip.settings import GossipSettings
from strategies.one_shot.settings import OneShotSettings
from strategies.personal.settings import PersonalSettings
from strategies.pruned_dp.settings import PrunedSettings

__all__ = [
    "ASYNCHRONOUS",
    "FLWR_PREFIX",
    "LogSettings",
    "Scalar",
    "SelectionSettings",
    "Settings",
    "StrategySettings",
    "TrainSettings",
    "hyphenated",
    "split_list",
]

FLWR_PREFIX = "flwr:"
"""What the name of one of Flower's own strategies begins with in ``strategy.name``."""


class TrainSettings(Settings):
    """Local training on a client.

    Attributes
    ----------
    optimizer
        ``sgd``, ``adam`` or ``adamw``.
    learning_rate
        Step size in the first round, above 0.
    momentum
        Of ``sgd``, in [0, 1); neutral 0. The other optimizers have no use for it.
    weight_decay
        L2 coefficient (decoupled in ``adamw``), at least 0; neutral 0.
    batch_size
        Examples per step, at least 1.
    local_epochs
        Passes over the client's examples per round, at least 1.
    local_steps
        Optimizer steps per round in place of epochs, at least 0; neutral 0, which counts epochs.
    lr_decay
        Factor on the learning rate per round, in (0, 1]; neutral 1.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    local_epochs: int = Field(default=2, ge=1)
    local_steps: int = Field(default=0, ge=0)
    lr_decay: float = Field(default=1.0, gt=0, le=1)


class _NamedStrategy(Settings):
    """The federated algorithm and its own parameters.

    Attributes
    ----------
    name
        A name of ``strategies.registry``, or ``flwr:<ClassName>`` for one of Flower's own strategies.
    mu
        FedProx: weight of (mu/2)‖w − w_t‖², at least 0; neutral 0, which is FedAvg.
    work
        FedProx: share of a round's local work that a client does, ``client-id=share`` pairs separated by
        commas, each share in (0, 1]; neutral empty: every client does all of it.
    options
        Arguments of a ``flwr:`` strategy as TOML pairs separated by commas: ``eta = 0.1, tau = 1e-3``;
        neutral empty.
    """

    name: str = Field(default="fedavg", min_length=1)
    mu: float = Field(default=0.01, ge=0)
    work: str = ""
    options: str = ""

    @property
    def flwr_class(self) -> str | None:
        """Name of the Flower class that runs, or None for a strategy of this package."""
        return self.name.removeprefix(FLWR_PREFIX) if self.name.startswith(FLWR_PREFIX) else None

    @property
    def work_shares(self) -> dict[str, float]:
        """``work``, parsed: share of the local work by client-id."""
        return _parse_work(self.work)

    @property
    def option_values(self) -> dict[str, Scalar]:
        """``options``, parsed: value by argument name."""
        return _parse_options(self.options)

    @field_validator("work")
    @classmethod
    def _work_parses(cls, value: str) -> str:
        _parse_work(value)
        return value

    @field_validator("options")
    @classmethod
    def _options_parse(cls, value: str) -> str:
        _parse_options(value)
        return value


class _FederatedStrategy(AsyncSettings, PrunedSettings, FedMDSettings, _NamedStrategy):
    """Strategies whose server averages, and FedMD."""


class StrategySettings(OneShotSettings, CodedSettings, GossipSettings, PersonalSettings, _FederatedStrategy):
    """The federated algorithm and the parameters of each: a class per algorithm that has many.

    The fields of the last base come first.
    """

    @property
    def is_asynchronous(self) -> bool:
        """Whether the server takes a step without waiting for all that it has asked."""
        return self.name in ASYNCHRONOUS

    @property
    def updates_per_step(self) -> int:
        """How many updates make a step of an asynchronous strategy."""
        return self.buffer_size if self.name == "fedbuff" else 1

    @property
    def updates_from_sent(self) -> bool:
        """Whether an update is what a client changed in the model it was sent; else told from the present."""
        return self.name != "fedasync"


def _parse_work(text: str) -> dict[str, float]:
    pairs = [entry.rpartition("=") for entry in split_list(text)]
    try:
        shares = {client_id.strip(): float(share) for client_id, _, share in pairs}
    except ValueError:
        raise ValueError("'client-id=share' pairs separated by commas") from None
    if len(shares) < len(pairs) or "" in shares:
        raise ValueError("'client-id=share' pairs, each with a client-id of its own")
    if not all(0 < share <= 1 for share in shares.values()):
        raise ValueError("'client-id=share' pairs with every share in (0, 1]")
    return shares


def _parse_options(text: str) -> dict[str, Scalar]:
    try:
        document = tomllib.loads(f"options = {{ {text} }}")
    except tomllib.TOMLDecodeError:
        raise ValueError("TOML pairs separated by commas, such as 'eta = 0.1, tau = 1e-3'") from None
    options = document.pop("options")
    if document or not all(isinstance(value, int | float | str) for value in options.values()):
        raise ValueError("TOML pairs on one line whose values are numbers, booleans or strings")
    return dict(options)


class SelectionSettings(Settings):
    """Which clients take part in a round.

    Attributes
    ----------
    fraction
        Share of the connected clients drawn per round, in (0, 1]; neutral 1.
    min_clients
        Clients that must be connected, and are drawn at the least, per round; at least 1.
    method
        How they are drawn: ``uniform``, ``power-of-choice``, ``oort`` or ``budgeted`` (see
        `strategies.server.selection_methods`).
    candidates
        ``power-of-choice``: how many are drawn, of which those with the largest loss take part; 0: twice as
        many as take part.
    explore
        ``oort``: share of the places for clients that were never asked, in [0, 1].
    budget
        ``budgeted``: rounds in which a client is asked at most, at least 1.
    over_selection
        How many times as many clients are asked as are waited for, at least 1; neutral 1.
    deadline
        Seconds on the simulated clock after which replies count no more, at least 0; neutral 0: no deadline.
    speeds
        The simulated clock: ``equal``, ``lognormal:<sigma>`` or ``pareto:<shape>``, how the clients' speeds
        are drawn; neutral ``none``: no clock.
    """

    fraction: float = Field(default=1.0, gt=0, le=1)
    min_clients: int = Field(default=1, ge=1)
    method: Literal["uniform", "power-of-choice", "oort", "budgeted"] = "uniform"
    candidates: int = Field(default=0, ge=0)
    explore: float = Field(default=0.1, ge=0, le=1)
    budget: int = Field(default=5, ge=1)
    over_selection: float = Field(default=1.0, ge=1)
    deadline: float = Field(default=0.0, ge=0)
    speeds: str = "none"

    @field_validator("speeds")
    @classmethod
    def _speeds_parse(cls, value: str) -> str:
        return check_speeds(value)


class LogSettings(Settings):
    """What the server keeps of every client's updates, for forgetting later.

    Attributes
    ----------
    enabled
        Whether updates are logged; without a log only methods that need none can forget.
    retention
        ``full`` (every update), ``sum`` (the weighted sum per client, all that subtraction needs) or
        ``interval:<k>`` (every k-th round, k at least 1; ``interval:1`` keeps what ``full`` keeps).
    dtype
        Precision of the stored updates; neutral ``float32``, the precision of the updates themselves.
    encrypted
        Whether each client's updates are encrypted with a key of their own, which a purge destroys first.
    keys
        Folder for the keys of encrypted logs, a folder in it for each log; ``~`` is the user's home.
    """

    enabled: bool = True
    retention: str = "full"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    encrypted: bool = False
    keys: str = Field(default="~/.lethe/keys/logs", min_length=1)

    @property
    def keys_path(self) -> Path | None:
        """``keys`` as an absolute path; None where the log is not encrypted."""
        return Path(self.keys).expanduser().absolute() if self.encrypted else None

    @property
    def interval(self) -> int:
        """Rounds from one kept round to the next: k of ``interval:<k>``, else 1."""
        return int(self.retention.partition(":")[2] or 1)

    @field_validator("retention")
    @classmethod
    def _retention_known(cls, value: str) -> str:
        if not re.fullmatch(r"full|sum|interval:0*[1-9]\d*", value):
            raise ValueError("'full', 'sum' or 'interval:<k>' with an integer k >= 1")
        return value
