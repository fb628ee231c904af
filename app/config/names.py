"""Suggests the nearest known name for an unknown name in a run config."""

import difflib
from collections.abc import Iterable

from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.registry import all_traits, family_names
from unlearning.registry import names
from unlearning.settings import AUTO

_ALIKE = 0.6  # what difflib takes for a close match


def _likeness(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()


def nearest_key(given: str, known: Iterable[str]) -> str | None:
    """Return the known key that was probably meant, or None if no name in its section is similar.

    A misspelt section is corrected first. Without a section, all of them are searched.

    >>> nearest_key("train.epochs", ["train.local-epochs", "train.momentum", "forget.sparsity"])
    'train.local-epochs'
    >>> nearest_key("model.epochs", ["model.hidden", "train.local-epochs"]) is None
    True
    """
    section, _, name = given.rpartition(".")
    parted = [key.rpartition(".") for key in known]
    meant = difflib.get_close_matches(section, {part[0] for part in parted}, n=1, cutoff=_ALIKE)
    scores = {
        f"{known_section}.{known_name}": _likeness(known_name, name)
        for known_section, _, known_name in parted
        if not section or [known_section] == meant
    }
    best = max(scores, key=lambda key: scores[key], default=None)
    return best if best is not None and scores[best] >= _ALIKE else None


def check_strategy_name(name: str) -> None:
    """Refuse a ``strategy.name`` that names no algorithm.

    Raises
    ------
    BadInput
        Naming the key, the name given, the known names and the nearest of them.
    """
    for traits in all_traits():
        if traits.owns(name):
            if traits.is_family:
                _check_known("strategy.name", name, family_names(traits.name))
            return
    _check_known("strategy.name", name, [traits.shown_name for traits in all_traits()])


def check_method_name(name: str) -> None:
    """Refuse a ``forget.method`` that names no method; raises as `check_strategy_name` does."""
    if name != AUTO:
        _check_known("forget.method", name, names())


def _check_known(key: str, given: str, known: Iterable[str]) -> None:
    there = sorted(known)
    if given not in there:
        near = difflib.get_close_matches(given, there, n=1, cutoff=_ALIKE)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"{key}: given {shown(given)}, allowed {', '.join(there)}{advice}")
