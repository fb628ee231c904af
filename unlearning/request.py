"""Requests to forget: whole clients, classes, or single examples of clients, named by explicit ids."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from strategies.core.errors import BadInput
from strategies.core.names import client_sort_key, short_hash
from strategies.runs.files import text_of
from strategies.server.exclusion import Drop

_LONGEST_NAME = 48
_CLASS_NAMES = "class-names"

Kind = Literal["client", "class", "sample"]


@dataclass(frozen=True)
class ForgetRequest:
    """A request to forget; exactly one of the three kinds.

    Parameters
    ----------
    clients
        Client-ids.
    classes
        Labels.
    samples
        Client-id -> positions in that client's own data.
    class_names
        What people call the classes, where that is not their number; it does not change the request.

    Raises
    ------
    BadInput
        If none or several kinds are given, a position or label is negative, or a class has no name.
    """

    clients: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    samples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Check the request and put it into its normal form: sorted, without repetitions."""
        if sum(map(bool, (self.clients, self.classes, self.samples))) != 1:
            raise BadInput("a request names clients, classes or samples: exactly one of the three")
        samples = {c: tuple(sorted(set(s))) for c, s in self.samples.items()}
        if any(c < 0 for c in self.classes) or any(i < 0 for s in samples.values() for i in s):
            raise BadInput("classes and sample positions are whole numbers from 0")
        if any(not s for s in samples.values()):
            raise BadInput("a sample request names at least one position for each of its clients")
        if self.class_names and len(self.class_names) != len(self.classes):
            raise BadInput("a request that names its classes has a name for each")
        names = dict(zip(self.classes, self.class_names, strict=False))
        object.__setattr__(self, "class_names", tuple(names[c] for c in sorted(names)))
        ordered = dict(sorted(samples.items(), key=lambda item: client_sort_key(item[0])))
        object.__setattr__(self, "clients", tuple(sorted(set(self.clients), key=client_sort_key)))
        object.__setattr__(self, "classes", tuple(sorted(set(self.classes))))
        object.__setattr__(self, "samples", ordered)

    @property
    def kind(self) -> Kind:
        """What the request names."""
        if self.clients:
            return "client"
        return "class" if self.classes else "sample"

    @property
    def name(self) -> str:
        """A short name for files, the same for the same request.

        Examples
        --------
        >>> ForgetRequest(clients=("7", "3")).name
        'client-3-7'
        >>> ForgetRequest(samples={"3": (5, 9)}).name
        'sample-3x2-fbdb62'
        >>> ForgetRequest(clients=tuple(map(str, range(40)))).name
        'client-0-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15-16-=07a29d'
        """
        if self.kind == "sample":
            counts = "-".join(f"{_slug(c)}x{len(s)}" for c, s in self.samples.items())
            return _shortened(f"sample-{counts}", json.dumps(self.to_json()), always=True)
        called = self.clients or self.class_names or self.classes
        name = "-".join([self.kind, *map(_slug, map(str, called))])
        return _shortened(name, name)

    @property
    def drop(self) -> Drop:
        """What the remaining clients leave out of their training."""
        return Drop(self.classes, self.samples)

    @cached_property
    def whole_clients(self) -> frozenset[str]:
        """The clients that are to be forgotten as a whole."""
        return frozenset(self.clients)

    @property
    def named_clients(self) -> tuple[str, ...]:
        """The clients that the request names."""
        return self.clients or tuple(self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain data."""
        return {
            "kind": self.kind,
            "clients": list(self.clients),
            "classes": list(self.classes),
            "samples": {c: list(s) for c, s in self.samples.items()},
            **({_CLASS_NAMES: list(self.class_names)} if self.class_names else {}),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ForgetRequest":
        """Return the request that `to_json` wrote; BadInput if it is something else."""
        try:
            clients, classes = tuple(data.get("clients", ())), tuple(data.get("classes", ()))
            samples = {str(c): tuple(s) for c, s in data.get("samples", {}).items()}
            names = tuple(data.get(_CLASS_NAMES, ()))
        except (AttributeError, TypeError):
            raise BadInput("a request is an object with the keys clients, classes and samples") from None
        numbers = [*classes, *(i for s in samples.values() for i in s)]
        if not all(isinstance(c, str) for c in (*clients, *names)) or not all(
            type(i) is int for i in numbers
        ):
            raise BadInput("a request names clients by texts, classes and samples by whole numbers")
        return ForgetRequest(clients, classes, samples, names)


def read_samples(path: Path) -> dict[str, tuple[int, ...]]:
    """Read ``{"client-id": [positions]}`` from a JSON file; BadInput if it is missing or of another form."""
    try:
        data = json.loads(text_of(path.read_bytes()))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict) or not data or not all(_is_index_list(v) for v in data.values()):
        raise BadInput(f'{path}: expected {{"client-id": [positions, …]}} with whole numbers from 0')
    return {str(client_id): tuple(positions) for client_id, positions in data.items()}


def _is_index_list(value: object) -> bool:
    return isinstance(value, Sequence) and all(type(i) is int and i >= 0 for i in value)


def _shortened(name: str, whole: str, *, always: bool = False) -> str:
    """Cut a long name, so that a method's name fits in the folder's as well; a hash stands for the rest."""
    if len(name) > _LONGEST_NAME:
        return f"{name[:_LONGEST_NAME]}={short_hash(whole)}"
    return f"{name}-{short_hash(whole)}" if always else name


def _slug(text: str) -> str:
    """Return a file-safe form of an id; a changed id stays distinct by a hash."""
    safe = "".join(c if (c.isalnum() and c.isascii()) or c in "._" else "_" for c in text)
    return text if safe == text and not text.startswith(".") else f"{safe.lstrip('.')}={short_hash(text)}"
