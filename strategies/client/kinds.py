"""What trainings must have in common to be one batched computation: nothing of a model may be overlooked.

Of a group of trainings one model is called for all, with everybody's parameters. So all else that decides
what a model makes of its inputs must be the same: its layers and whatever attributes they have, which
parameters are trained, which are tied, what is not trained, and what hooks do.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from strategies.client.stacked_data import Request
from strategies.client.training import Training
from strategies.core.examples import Inputs, TensorExamples

T = TypeVar("T")

Kind = tuple[object, ...]
"""Equal for trainings that can be stacked."""

UNREADABLE = "unreadable"
"""The first entry of the kind of a training whose data or model cannot be looked at."""

_KINDS_KEPT = 64
"""Of which a process remembers what it found."""
_HASHED_ANEW = 2**16
"""Bytes of what a model does not train that are hashed at each look; more are where torch counts a change."""
_OF_TORCH = frozenset(vars(nn.Module()))
_HOOKS = sorted(name for name in _OF_TORCH if name.endswith("_hooks"))
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size)

_digests: "WeakKeyDictionary[nn.Module, _Digest]" = WeakKeyDictionary()


def by_kind(requests: Sequence[Request]) -> dict[Kind, list[int]]:
    """Return which requests are alike enough to be stacked, by their positions."""
    found: dict[Kind, list[int]] = {}
    models: dict[int, Kind] = {}
    for number, request in enumerate(requests):
        training = request.training
        try:
            model = models.get(id(training.model)) or kind_of_model(training.model)
            models[id(training.model)] = model
            kind = (*model, *_kind_of_work(training))
        except Exception:  # noqa: BLE001 (data that cannot be read fail in the client's own training)
            kind = (UNREADABLE, number)
        found.setdefault(kind, []).append(number)
    return found


def kind_of_model(model: nn.Module) -> Kind:
    """Return what tells a model from others, but for the values of what is trained."""
    layers: dict[int, str] = {}
    parameters: dict[int, str] = {}
    looks = tuple(
        (name, layers.setdefault(id(layer), name), type(layer), _attributes(layer))
        for name, layer in model.named_modules(remove_duplicate=False)
    )
    shapes = tuple(
        (name, parameters.setdefault(id(p), name), tuple(p.shape), p.dtype, p.requires_grad, _hooks_of(p))
        for name, p in model.named_parameters(remove_duplicate=False)
    )
    fixed = {n: p for n, p in model.named_parameters() if not p.requires_grad} | dict(model.named_buffers())
    return looks, shapes, tuple(fixed), _digest(model, list(fixed.values()))


def _kind_of_work(training: Training) -> Kind:
    settings, data = training.settings, training.examples
    rates = training.rates or [settings.learning_rate]
    steady = all(rate == rates[0] for rate in rates)
    if isinstance(data, TensorExamples):
        inputs: Inputs = data.x
        targets = data.y
    else:
        inputs, targets = data.batch(torch.zeros(1, dtype=torch.int64))
    optimizer = settings.optimizer, settings.momentum, settings.nesterov, settings.weight_decay
    return (
        training.task,
        training.device,
        training.precision,
        None if training.mechanism is None else training.mechanism.alone(training),
        optimizer,
        settings.max_gradient_norm,
        rates[0] if steady else tuple(rates),
        form_of(inputs),
        form_of(targets),
    )


def form_of(part: Inputs) -> Kind:
    """Return names, shapes and types of what a batch consists of, but for its number of examples."""
    parts = {"": part} if isinstance(part, Tensor) else part
    return tuple((name, each.shape[1:], each.dtype) for name, each in sorted(parts.items()))


def remember(known: dict[Kind, T], kind: Kind, found: T) -> None:
    """Note what was found of a kind, in place of the oldest where many are known."""
    while len(known) >= _KINDS_KEPT:
        del known[next(iter(known))]
    known[kind] = found


def _attributes(layer: nn.Module) -> Kind:
    """Return a layer's attributes and hooks, without its tensors, layers and mode."""
    own = vars(layer)
    hooks = (described(each) for name in _HOOKS for each in (own[name] or {}).values())
    return tuple((name, described(own[name])) for name in sorted(own.keys() - _OF_TORCH)), tuple(hooks)


def _hooks_of(parameter: nn.Parameter) -> Kind:
    """Return what is done to a parameter's gradient."""
    each = (parameter._backward_hooks or {}, parameter._post_accumulate_grad_hooks or {})
    return tuple(described(hook) for hooks in each for hook in hooks.values())


@dataclass(frozen=True, eq=False)
class _Itself:
    """Something that is equal to nothing but itself, and lives as long as it is compared."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def described(thing: object) -> object:
    """Return something that is equal for things that do the same; a thing that is not known is itself alone.

    A layer within is told by its type, as all layers of a model are looked at.

    Examples
    --------
    >>> described([1, 2.0]) == described([1, 2.0]), described(1) == described(True)
    (True, False)
    >>> described(torch.relu) == described(torch.tanh)
    False
    """
    if isinstance(thing, _PLAIN):
        return type(thing), repr(thing)
    if isinstance(thing, Tensor):
        return tuple(thing.shape), thing.dtype, _hashed([thing])
    if isinstance(thing, nn.Module):
        return type(thing)
    if isinstance(thing, Mapping | AbstractSet | list | tuple | partial):
        return type(thing), tuple(_entries(thing))
    return _Itself(thing)


def _entries(thing: Any) -> Iterator[object]:
    """Yield what a collection holds; mappings in their order, as a forward pass may go through them."""
    if isinstance(thing, Mapping):
        yield from ((described(key), described(value)) for key, value in thing.items())
    elif isinstance(thing, AbstractSet):
        yield frozenset(map(described, thing))
    elif isinstance(thing, partial):
        yield from map(described, (thing.func, thing.args, thing.keywords))
    else:
        yield from map(described, thing)


@dataclass(frozen=True, eq=False)
class _Digest:
    """A hash of what a model does not train, and what torch counted of its changes then."""

    fixed: list[Tensor]
    versions: list[int]
    value: bytes

    def still_holds(self, fixed: list[Tensor]) -> bool:
        same = len(self.fixed) == len(fixed) and all(a is b for a, b in zip(self.fixed, fixed, strict=True))
        return same and self.versions == [t._version for t in fixed]


def _digest(model: nn.Module, fixed: list[Tensor]) -> bytes:
    if sum(tensor.nbytes for tensor in fixed) <= _HASHED_ANEW:
        return _hashed(fixed)
    look = _digests.get(model)
    if look is None or not look.still_holds(fixed):
        look = _digests[model] = _Digest(fixed, [t._version for t in fixed], _hashed(fixed))
    return look.value


def _hashed(tensors: Sequence[Tensor]) -> bytes:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
