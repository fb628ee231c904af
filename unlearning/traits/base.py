"""What the rest of the program knows of a forgetting method before it works: its keys, needs and promises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from strategies.core.settings import Settings
from unlearning.request import Kind
from unlearning.settings import ForgetSettings

UNCHANGED = "unchanged"
"""Among the details of a result: 1 where nothing was to be forgotten."""
SEED = "seed"
"""Among the details of a result: the seed that was taken in place of the run's own."""
STANDING = "standing"
"""Among the details of a result that held-out data decided: where the forgotten data stand, in words."""

CERTIFIED = "certified"
"""Among the details of a result that noise hides: from what it cannot be told, and how well."""
GROUPS = "isolation"
"""Among the details of a result: how many groups were trained apart, and which of them were worked on."""

LogNeed = Literal["none", "norms", "sum", "kept", "full"]


@dataclass(frozen=True)
class Needs:
    """What must be there before a method starts.

    Parameters
    ----------
    log
        ``none``; ``norms``: the weight and norm of each update are enough, which every log keeps; ``sum``: so
        is the running Σ weight·update of each client; ``kept``: what clients sent in some rounds, whatever
        the strategy made of it; ``full``: the updates of every round are read.
    public
        Whether the server needs data of its own.
    remaining
        Whether the clients that remain must be online.
    forgotten
        Whether the forgotten client must be online.
    rebuilds
        Whether what others sent in the run goes into the model once more, as where it is made anew from the
        initial one. That holds all classes and examples: such a method cannot follow a request that named
        some.
    fresh
        Whether every update of a logged round is taken as made from that round's model; with an asynchronous
        strategy it may be late.
    form
        Which form of the method has these needs, for messages; empty where it has but one.
    models
        Whose models it works on: ``global``, the one that all clients share; ``client``, those that clients
        keep to themselves; or ``any``.
    labels
        What it does with class labels, which the task must have; empty: it asks the task.
    convex
        Whether what it promises rests on a loss that is convex in the weights, and on plain gradient steps
        (see `unlearning.convexity`).
    held_out
        The key that says how long it works; it is not given, so that data that nobody trained on must say it,
        the server's public ones. Empty: it does not ask such data. A class that is forgotten as a whole needs
        none (see `unlearning.central.stopping`).
    """

    log: LogNeed = "none"
    public: bool = False
    remaining: bool = False
    forgotten: bool = False
    rebuilds: bool = False
    fresh: bool = False
    form: str = ""
    models: Literal["global", "client", "any"] = "global"
    labels: str = ""
    convex: bool = False
    held_out: str = ""


@dataclass(frozen=True)
class Traits:
    """What a forgetting method is, apart from the work.

    Parameters
    ----------
    name
        As in the run config.
    summary, guarantee, source, cost
        For people: one line; exact, or approximate and what is not promised; the paper in a few words; rounds
        and client visits.
    needs
        What must be there, by the section ``forget``.
    serves, refusal
        The kinds of request, and why the other kinds are not served.
    settings
        Its own keys of that section.
    prunes_anew
        Whether it chooses the mask of a pruned run anew; the others keep it.
    trains_as_the_run
        Whether its clients only train by the run's own algorithm, and so with its privacy.
    is_reference
        Whether it is the retraining that the others are compared with.
    flat_keys
        Key of version 0.1, where all methods shared one section -> its own key, where the two differ.
    """

    name: str
    summary: str
    guarantee: str
    source: str
    cost: str
    needs: Callable[[ForgetSettings], Needs]
    serves: frozenset[Kind] = frozenset({"client", "class", "sample"})
    refusal: str = ""
    settings: type[Settings] = Settings
    prunes_anew: bool = False
    trains_as_the_run: bool = False
    is_reference: bool = False
    flat_keys: Mapping[str, str] = field(default_factory=dict)
