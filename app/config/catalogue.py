"""What can be named in a run config, with one line and a page about each; nothing here imports torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from app.config.settings import BUILT_IN_MODELS, MODEL_LIBRARIES
from strategies import registry as algorithms
from strategies.core.errors import BadInput
from strategies.tasks.settings import TaskSettings
from unlearning import registry as methods

MODELS: Mapping[str, str] = {
    "linear": "one linear layer, for any inputs; its loss is convex",
    "mlp": "a perceptron with one hidden layer, for any inputs",
    "cnn": "a small convolutional network, for images",
    "resnet18": "ResNet-18 with GroupNorm, for images",
    "torchvision:NAME": "any classifier of torchvision, without its weights",
    "timm:NAME": "any classifier of timm (extra timm), without its weights",
}
"""How `model.name` names a model -> what it is."""
DATA: Mapping[str, str] = {
    "digits": "1797 grey images of digits, 8×8, which come with scikit-learn",
    "synthetic:ALPHA,BETA": "drawn for each client, who differ by alpha and beta",
    "mnist": "grey images of digits, 28×28",
    "fashionmnist": "grey images of clothes, 28×28",
    "kmnist": "grey images of Japanese characters, 28×28",
    "emnist": "grey images of letters, 28×28",
    "cifar10": "colour images of 10 kinds, 32×32",
    "cifar100": "colour images of 100 kinds, 32×32",
    "svhn": "colour images of house numbers, 32×32",
    "gtsrb": "colour images of traffic signs, scaled to 32×32",
    "npz:FILE": "your own arrays",
    "csv:FILE": "your own table",
    "parquet:FILE": "your own table (extra tables)",
    "folder:FOLDER": "your own images, a folder for each class",
}
"""How `data.name` names a data set -> what it is."""
TASKS: Mapping[str, str] = {
    "auto": "what the project says, else classification",
    "classification": "one class of several",
    "multi-label": "any of several labels",
    "regression": "numbers",
    "segmentation": "a class for each pixel",
}
"""How `task.name` names a task -> what is learned."""


@dataclass(frozen=True)
class Entry:
    """Something that a run config can name: its name, one line about it, and the page that tells more."""

    name: str
    summary: str
    page: str


def entries(kind: str) -> list[Entry]:
    """Return what there is of a kind, one of `KINDS`; BadInput if there is no such kind."""
    if kind not in KINDS:
        raise BadInput(f"list: given {kind!r}, allowed {', '.join(KINDS)}")
    return KINDS[kind]()


def _strategies() -> list[Entry]:
    found = algorithms.all_traits()
    return [Entry(each.shown_name, algorithms.summary_of(each.name), each.page) for each in found]


def _methods() -> list[Entry]:
    return [Entry(name, methods.summary_of(name), "docs/methods.md") for name in methods.names()]


def _models() -> list[Entry]:
    names = (*BUILT_IN_MODELS, *(f"{library}:NAME" for library in MODEL_LIBRARIES))
    return [Entry(name, MODELS[name], "docs/models.md") for name in names]


def _data() -> list[Entry]:
    return [Entry(name, summary, "docs/data.md") for name, summary in DATA.items()]


def _tasks() -> list[Entry]:
    names = get_args(TaskSettings.model_fields["name"].annotation)
    return [Entry(name, TASKS[name], "docs/tasks.md") for name in names]


KINDS: Mapping[str, Callable[[], list[Entry]]] = {
    "strategies": _strategies,
    "models": _models,
    "data": _data,
    "methods": _methods,
    "tasks": _tasks,
}
"""What `entries` knows."""
