"""Models of torchvision and timm by name, never with weights of theirs: nothing is downloaded.

torchvision and timm are imported only when a model of theirs is asked for, which takes seconds.
"""

import difflib
from collections.abc import Callable, Sequence

from torch import nn

from app.config.settings import MODEL_LIBRARIES
from strategies.core.errors import BadInput
from strategies.core.extras import not_installed

_AUXILIARY = ("googlenet", "inception_v3")
"""Models of torchvision whose further heads must be left off, so that they answer with one tensor."""


def library_of(name: str) -> str:
    """Return the library that a model's name begins with; empty if it is none.

    >>> library_of("timm:resnet10t"), library_of("cnn")
    ('timm', '')
    """
    library, colon, _ = name.partition(":")
    return library if colon and library in MODEL_LIBRARIES else ""


def build_named(name: str, num_outputs: int) -> nn.Module:
    """Build ``torchvision:NAME`` or ``timm:NAME`` with that many outputs, from torch's global generator.

    Raises
    ------
    BadInput
        If the library is not installed or has no such model; the nearest names are given.
    """
    library, _, model = name.partition(":")
    return _BUILDERS[library](model, num_outputs)


def _torchvision(name: str, num_outputs: int) -> nn.Module:
    from torchvision import models

    _require("torchvision", name, models.list_models(module=models))
    further = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    return models.get_model(name, weights=None, num_classes=num_outputs, **further)


def _timm(name: str, num_outputs: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise BadInput(f"model.name: given 'timm:{name}', but {not_installed('timm', 'timm')}") from None
    _require("timm", name, timm.list_models())
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_outputs)
    return model


def _require(library: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4) or list(known)[:3]
        raise BadInput(
            f"model.name: {library} has no classifier '{name}'; near it: {', '.join(near)}; "
            f"it has {len(known)}"
        )


_BUILDERS: dict[str, Callable[[str, int], nn.Module]] = {"torchvision": _torchvision, "timm": _timm}


class RepeatChannel:
    """Goes before a model: repeats the one channel of grey images, shape [n, 1, h, w].

    It is a hook, not a layer, so that the names of the model's entries stay what they are.

    Parameters
    ----------
    channels
        How many the model takes.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, model: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        """Return the inputs with that many channels."""
        first, *others = inputs
        return (first.expand(-1, self.channels, *first.shape[2:]), *others)  # type: ignore[attr-defined]


def channels_of(model: nn.Module) -> int:
    """Return how many channels the first convolution takes; 0 if there is none."""
    convolutions = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return next((layer.in_channels for layer in convolutions), 0)
