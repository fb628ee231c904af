"""The forgetting methods by name: what a run config may write as ``forget.method``.

This is the one place that lists them. A method is a module of `unlearning.methods` that defines ``METHOD``,
and one of the same name in `unlearning.traits` that defines ``TRAITS``: its keys, needs and promises. The
former imports torch, and is imported when a method is looked up; the latter does not.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from strategies.core.first_lines import first_line
from strategies.core.settings import Settings

if TYPE_CHECKING:
    from unlearning.methods.base import Method
    from unlearning.traits.base import Traits

_MODULES = {
    "subtract": "subtract",
    "fast-fedul": "fast_fedul",
    "distill": "distill",
    "fast-distill": "fast_distill",
    "leave-out": "leave_out",
    "federaser": "federaser",
    "finetune": "finetune",
    "l1-sparse": "l1_sparse",
    "ascent": "ascent",
    "influence": "influence",
    "fisher": "fisher",
    "neggrad": "neggrad",
    "scrub": "scrub",
    "random-labels": "random_labels",
    "bad-teacher": "bad_teacher",
    "salun": "salun",
    "ssd": "ssd",
    "fedosd": "fedosd",
    "negate": "negate",
    "redistill": "redistill",
    "sifu": "sifu",
    "reprune": "reprune",
    "retrain": "retrain",
}
"""Name -> the two modules' own name."""


def names() -> Iterable[str]:
    """Return the names of all methods, in the order of the registry."""
    return _MODULES.keys()


@cache
def lookup(name: str) -> "Method":
    """Return the method with this name, which must be one of `names`."""
    method: Method = import_module(f"unlearning.methods.{_MODULES[name]}").METHOD
    return method


@cache
def traits_of(name: str) -> "Traits":
    """Return what a method, one of `names`, takes, needs and promises, without importing it."""
    traits: Traits = import_module(f"unlearning.traits.{_MODULES[name]}").TRAITS
    return traits


def all_traits() -> "dict[str, Traits]":
    """Return the traits of all methods by name, in the order of the registry, without importing a method."""
    return {name: traits_of(name) for name in names()}


def summary_of(name: str) -> str:
    """Return one line about the method with this name, one of `names`, without importing it."""
    return first_line(f"unlearning.methods.{_MODULES[name]}")


def settings_of(name: str) -> type[Settings]:
    """Return the class of a method's own settings, without importing the method."""
    return traits_of(name).settings
