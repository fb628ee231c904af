"""Settings of asynchronous training, all of them keys of the section ``strategy``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from strategies.core.conditions import only_with
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.core.traits import Traits
from strategies.server.settings import ServerRate

if TYPE_CHECKING:
    from strategies.settings import NamedStrategy


class AsyncSettings(ServerRate):
    """What ``fedasync`` and ``fedbuff`` read.

    Attributes
    ----------
    concurrency
        How many clients train at once, at least 0; 0: all that are connected.
    max_staleness
        Server steps that an update may be behind; a later one is dropped and counted. At least 0.
    staleness
        How the weight of an update falls with its staleness: ``constant``, ``polynomial`` or ``hinge`` (see
        `strategies.asynchronous.staleness`); neutral ``constant``.
    staleness_exponent
        ``polynomial``: a of (1 + s)^−a, at least 0; neutral 0.
    hinge_slope
        ``hinge``: a of 1 / (a (s − b) + 1), where s is above b; above 0.
    hinge_start
        ``hinge``: b, the largest staleness that costs no weight, at least 0.
    mixing
        ``fedasync``: α, the share of a fresh client's model in the new one, in (0, 1].
    buffer_size
        ``fedbuff``: K, how many updates make a server step, at least 1; neutral: as many as there are
        clients.
    """

    concurrency: int = Field(default=0, ge=0)
    max_staleness: int = Field(default=20, ge=0)
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial"
    staleness_exponent: float = Field(default=0.5, ge=0)
    hinge_slope: float = Field(default=10.0, gt=0)
    hinge_start: int = Field(default=4, ge=0)
    mixing: float = Field(default=0.6, gt=0, le=1)
    buffer_size: int = Field(default=3, ge=1)


def updates_per_step(settings: "NamedStrategy") -> int:
    """Return how many updates make a step of the server."""
    waits = "strategy.buffer-size" in settings.traits.keys
    return settings.own(AsyncSettings).buffer_size if waits else 1


def updates_from_sent(settings: "NamedStrategy") -> bool:
    """Return whether updates are differences from the model that was sent; else from the present model."""
    return "strategy.mixing" not in settings.traits.keys


_BOTH = ("concurrency", "max_staleness", "staleness", "staleness_exponent", "hinge_slope", "hinge_start")
_CONDITIONS = (
    only_with("strategy.staleness-exponent", "strategy.staleness", "polynomial"),
    only_with("strategy.hinge-slope strategy.hinge-start", "strategy.staleness", "hinge"),
)


def _check_buffer(flat: Mapping[str, Scalar]) -> None:
    size, clients = int(flat["strategy.buffer-size"]), int(flat["data.clients"])
    if 0 < clients < size:
        raise BadInput(
            f"strategy.buffer-size: given {size}, allowed at most data.clients, which is {clients}: a buffer "
            "holds one update per client"
        )


TRAITS = (
    Traits(
        "fedasync",
        AsyncSettings,
        (*_BOTH, "mixing"),
        conditions=_CONDITIONS,
        asynchronous=True,
        hidden="none",
        page="docs/async.md",
    ),
    Traits(
        "fedbuff",
        AsyncSettings,
        (*_BOTH, "buffer_size", "server_learning_rate"),
        conditions=_CONDITIONS,
        check=_check_buffer,
        helps=("waiting",),
        asynchronous=True,
        hidden="none",
        page="docs/async.md",
    ),
)
