"""The federated algorithms by name: what a run config may write as ``strategy.name``.

This is the one place that lists them. An algorithm in a folder has its settings and traits in the
``settings.py`` beside it; a single file has no settings and the traits of plain averaging. Neither imports
torch: the modules that do are imported when an algorithm is looked up.
"""

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

from strategies.core.errors import BadInput
from strategies.core.first_lines import first_line
from strategies.core.traits import Traits

if TYPE_CHECKING:
    from strategies.algorithm import Algorithm

PLAIN = "fedavg"
"""Plain averaging, on which the others are built."""

_MODULES = {
    PLAIN: "strategies.fedavg",
    "fedprox": "strategies.fedprox.fedprox",
    "scaffold": "strategies.scaffold.scaffold",
    "feddyn": "strategies.feddyn.feddyn",
    "fedavgm": "strategies.fedopt.fedavgm",
    "fedadagrad": "strategies.fedopt.fedadagrad",
    "fedadam": "strategies.fedopt.fedadam",
    "fedyogi": "strategies.fedopt.fedyogi",
    "flwr:": "strategies.flower.flower",
    "fedmd": "strategies.fedmd.server",
    "pruned-dp": "strategies.pruned_dp.pruned_dp",
    "fedasync": "strategies.asynchronous.fedasync",
    "fedbuff": "strategies.asynchronous.fedbuff",
    "per-fedavg": "strategies.personal.per_fedavg",
    "ditto": "strategies.personal.ditto",
    "gossip": "strategies.gossip.gossip",
    "coded-gd": "strategies.coded_gd.coded_gd",
    "one-shot": "strategies.one_shot.one_shot",
}
"""Name -> the module that defines ``ALGORITHM``."""


@lru_cache(maxsize=1)
def all_traits() -> tuple[Traits, ...]:
    """Return the traits of all algorithms, in the order of the registry."""
    return tuple(_traits(name, module) for name, module in _MODULES.items())


def traits_of(name: str) -> Traits:
    """Return the traits of the algorithm with this name; BadInput if there is none."""
    for traits in all_traits():
        if traits.owns(name):
            return traits
    known = ", ".join(sorted(traits.shown_name for traits in all_traits()))
    raise BadInput(f"strategy.name: got '{name}', known are {known}")


def summary_of(name: str) -> str:
    """Return one line about the algorithm with this name, without importing it; BadInput if there is none."""
    return first_line(_MODULES[traits_of(name).name])


def lookup(name: str) -> "Algorithm":
    """Return the algorithm with this name; BadInput if there is none."""
    found = import_module(module_of(name)).ALGORITHM
    if TYPE_CHECKING:
        assert isinstance(found, Algorithm)
    return found


def module_of(name: str) -> str:
    """Return the name of the module that defines the algorithm with this name; BadInput if there is none."""
    return _MODULES[traits_of(name).name]


def family_names(name: str) -> list[str]:
    """Return the names that belong to a family of algorithms."""
    return sorted(lookup(name).members())


def _traits(name: str, module: str) -> Traits:
    package = module.rpartition(".")[0]
    if package == __package__:
        return Traits(name)
    found: tuple[Traits, ...] = import_module(f"{package}.settings").TRAITS
    return next(traits for traits in found if traits.name == name)
