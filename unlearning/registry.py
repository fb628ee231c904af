"""The forgetting methods by name: what a run config may write as ``forget.method``.

This is the one place that lists them. A method is a module that defines ``METHOD``. Modules import torch, and
are imported when a method is looked up.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from strategies.core.first_lines import first_line
from strategies.core.settings import Settings

if TYPE_CHECKING:
    from unlearning.methods.base import Method

_MODULES = {
    "subtract": "unlearning.methods.subtract",
    "fast-fedul": "unlearning.methods.fast_fedul",
    "distill": "unlearning.methods.distill",
    "fast-distill": "unlearning.methods.fast_distill",
    "federaser": "unlearning.methods.federaser",
    "finetune": "unlearning.methods.finetune",
    "l1-sparse": "unlearning.methods.l1_sparse",
    "ascent": "unlearning.methods.ascent",
    "influence": "unlearning.methods.influence",
    "fisher": "unlearning.methods.fisher",
    "fedosd": "unlearning.methods.fedosd",
    "negate": "unlearning.methods.negate",
    "redistill": "unlearning.methods.redistill",
    "reprune": "unlearning.methods.reprune",
    "retrain": "unlearning.methods.retrain",
}
"""Name -> the module that defines ``METHOD``."""


def names() -> Iterable[str]:
    """Return the names of all methods, in the order of the registry."""
    return _MODULES.keys()


@cache
def lookup(name: str) -> "Method":
    """Return the method with this name, which must be one of `names`."""
    method: Method = import_module(_MODULES[name]).METHOD
    return method


def summary_of(name: str) -> str:
    """Return one line about the method with this name, one of `names`, without importing it."""
    return first_line(_MODULES[name])


def settings_of(name: str) -> type[Settings]:
    """Return the class of a method's own settings."""
    return lookup(name).settings
