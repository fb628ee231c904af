"""Layers that normalise, and what ``model.batch-norm`` makes of those that do so over the batch."""

import math

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from strategies.core.errors import BadInput
from strategies.models import batch_norm

_GROUPS = 8
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MARKS = {"local": batch_norm.Local, "recalibrate": batch_norm.Recalibrated}


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm of eight groups, or as many as divide the channels."""
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def settle_batch_norm(model: nn.Module, policy: str) -> None:
    """Carry out ``model.batch-norm`` on a model, in place.

    A layer that is replaced hands on its weight and bias; one that is marked keeps everything. A layer whose
    weight and bias are frozen is no matter of the policy: it keeps its statistics as well.

    Raises
    ------
    BadInput
        If the policy is ``refuse`` and there is such a layer, or the policy cannot be carried out on one.
    """
    _refuse_instance_norm(model)
    replaced: dict[nn.Module, nn.Module] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(layer, _BatchNorm) or isinstance(layer, batch_norm.Marked):
            continue
        if layer.affine and not any(parameter.requires_grad for parameter in layer.parameters()):
            batch_norm.mark(layer, batch_norm.Frozen)
        elif policy == "group":
            if layer not in replaced:
                replaced[layer] = _as_group_norm(name, layer)
            model.set_submodule(name, replaced[layer])
        else:
            _mark(name, layer, policy)


def _mark(name: str, layer: _BatchNorm, policy: str) -> None:
    if policy not in _MARKS or isinstance(layer, nn.SyncBatchNorm):
        raise BadInput(_refusal(name, layer))
    batch_norm.mark(layer, _MARKS[policy])


def _refusal(name: str, layer: nn.Module) -> str:
    if isinstance(layer, nn.SyncBatchNorm):
        return f"model.name: layer {name!r} is SyncBatchNorm, which no client has peers for; use BatchNorm"
    return (
        f"model.name: layer {name!r} is {type(layer).__name__}, whose running statistics cannot be averaged "
        'over clients; use GroupNorm, or set model.batch-norm to "group" (replaces it by GroupNorm), "local" '
        '(it stays with each client) or "recalibrate" (the server sets its statistics)'
    )


def _as_group_norm(name: str, layer: _BatchNorm) -> nn.GroupNorm:
    if type(layer) not in _PLAIN or not name:
        raise BadInput(
            f'model.batch-norm: given "group", but layer {name!r} is {type(layer).__name__}, which does '
            'more than normalise; allowed "local" or "recalibrate"'
        )
    channels = layer.num_features
    made = nn.GroupNorm(math.gcd(_GROUPS, channels), channels, layer.eps, layer.affine)
    if layer.affine:
        made.weight, made.bias = layer.weight, layer.bias
    return made


def _refuse_instance_norm(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
            raise BadInput(
                f"model.name: layer {name!r} is {type(layer).__name__} with running statistics, which cannot "
                "be averaged over clients; use track_running_stats=False"
            )
