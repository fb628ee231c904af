"""What of a model travels between server and clients, by name and by the policy of its layers.

Trainable parameters travel, each once where several names share it, and the statistics of layers marked
`Recalibrated`, which the server sets. All else stays: frozen parameters (``requires_grad=False``), layers
marked `Local`, every other buffer. What stays is not logged, aggregated, compressed, noised or forgotten; it
must be the same everywhere, as `fingerprint` shows.
"""

import hashlib
from collections.abc import Iterator, Mapping

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from strategies.core.wire import FlatRecord, Layout, State
from strategies.models.batch_norm import Local, Recalibrated

_DIGITS = 4
"""Hexadecimal digits of a fingerprint for each entry."""


def travelling(model: nn.Module) -> State:
    """Return what travels, by name, in the order of the model's state; it shares the model's memory."""
    local = _within(model, Local)
    names = {name for name, p in model.named_parameters() if p.requires_grad and name not in local}
    names |= {
        f"{path}.{key}".lstrip(".")
        for path, layer in model.named_modules()
        if isinstance(layer, Recalibrated)
        for key in ("running_mean", "running_var")
    }
    return {name: tensor for name, tensor in _state(model).items() if name in names}


def layout_of(model: nn.Module) -> Layout:
    """Return the layout of what travels."""
    return Layout.of(travelling(model))


def vector_of(model: nn.Module) -> Tensor:
    """Return what travels as a new vector on the CPU, shape [size], float32."""
    state = travelling(model)
    return Layout.of(state).flatten(state)


def record_of(model: nn.Module) -> ArrayRecord:
    """Return what travels as a record of a message."""
    state = travelling(model)
    layout = Layout.of(state)
    return FlatRecord(layout.flatten(state), layout)


def staying(model: nn.Module) -> State:
    """Return the rest of the model's state, by name; a second name of what travels is not in it."""
    sent = {tensor.data_ptr() for tensor in travelling(model).values() if tensor.numel()}
    kept = travelling(model).keys()
    state = _state(model).items()
    return {n: t for n, t in state if n not in kept and not (t.numel() and t.data_ptr() in sent)}


def local(model: nn.Module) -> State:
    """Return the floating entries of the layers marked `Local`, by name; they share the model's memory."""
    names = _within(model, Local)
    return {n: t for n, t in _state(model).items() if n in names and t.is_floating_point()}


def changeable(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return what stays and may change as a client works, each tensor with a copy of its present value.

    These are all buffers, those outside of the model's state as well, and the parameters of `Local` layers.
    """
    found = [b for _, b in model.named_buffers()]
    found += [p for n, p in model.named_parameters() if n in _within(model, Local)]
    return [(tensor, tensor.detach().clone()) for tensor in found]


def put_back(kept: list[tuple[Tensor, Tensor]]) -> None:
    """Give tensors the values that `changeable` noted."""
    if not kept:
        return
    with torch.no_grad():
        for tensor, value in kept:
            tensor.copy_(value)


def fingerprint(kept: State) -> str:
    """Return a text that tells what stays, by name, shape and number; empty if nothing does.

    `kept` is what `staying` returns. The text is the SHA-256 of all entries, then, after a colon, four digits
    of each entry's own.
    """
    if not kept:
        return ""
    entries = [_sha256({name: tensor}) for name, tensor in kept.items()]
    return f"{_sha256(kept)}:{''.join(entry[:_DIGITS] for entry in entries)}"


def first_difference(kept: State, expected: str) -> str:
    """Say which entry's fingerprint is not the expected one, as far as that can be said; empty: all agree."""
    own = fingerprint(kept)
    if own == expected:
        return ""
    names = list(kept)
    theirs = _pieces(expected)
    if len(theirs) != len(names):
        return f"{len(names)} entries do not travel here, {len(theirs)} there"
    differing = (n for n, a, b in zip(names, _pieces(own), theirs, strict=True) if a != b)
    return f"'{next(differing, names[0])}' differs"


def _pieces(text: str) -> list[str]:
    digits = text.partition(":")[2]
    return [digits[i : i + _DIGITS] for i in range(0, len(digits), _DIGITS)]


def _sha256(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _state(model: nn.Module) -> State:
    return {name: t for name, t in model.state_dict().items() if isinstance(t, Tensor)}


def _within(model: nn.Module, kind: type[nn.Module]) -> frozenset[str]:
    """Return the names of the state's entries that belong to layers of a kind."""
    return frozenset(_names(model, kind))


def _names(model: nn.Module, kind: type[nn.Module]) -> Iterator[str]:
    for path, layer in model.named_modules():
        if isinstance(layer, kind):
            for key, _ in (*layer.named_parameters(), *layer.named_buffers()):
                yield f"{path}.{key}".lstrip(".")
