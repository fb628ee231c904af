"""From the section `task` to the task and the figures that it is judged by; both ends choose here."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from torch import Tensor

from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import hyphenated
from strategies.figures import Figures
from strategies.task import CLASSIFICATION, Task
from strategies.tasks.multi_label import MultiLabel
from strategies.tasks.regression import Regression
from strategies.tasks.segmentation import Segmentation
from strategies.tasks.settings import TaskSettings
from strategies.tasks.weighted import WeightedClassification

OWNERS = {
    "class_weights": "classification",
    "label_smoothing": "classification",
    "outputs": "regression",
    "squared_error": "regression",
    "scale": "regression",
    "scale_from": "regression",
    "scale_range": "regression",
    "ignore": "segmentation",
}
"""Field of the section -> the one task that reads it."""


def task_of(settings: TaskSettings, own: Task | str | None = None) -> Task:
    """Return the task of a run.

    Parameters
    ----------
    settings
        The section ``task``.
    own
        The project's: a task, or the name of a built-in one; None: the project says nothing.

    Raises
    ------
    BadInput
        If config and project name different tasks.
    """
    if isinstance(own, Task):
        if settings.name not in {"auto", own.name}:
            raise BadInput(
                f"task.name: given {shown(settings.name)}, but the project brings a task; allowed auto"
            )
        _refuse_settings_of_others(settings, "the project's own")
        return own
    name = settings.name if settings.name != "auto" else own or "classification"
    if own not in {None, name}:
        raise BadInput(f"task.name: given {shown(settings.name)}, but the project's is {shown(own)}")
    if name not in _BUILDERS:
        raise BadInput(f"the project's task: given {shown(name)}, allowed a Task, or {', '.join(_BUILDERS)}")
    _refuse_settings_of_others(settings, name)
    return _built(name, settings)


@lru_cache(maxsize=8)
def _built(name: str, settings: TaskSettings) -> Task:
    """Return a built-in task, the same object for the same settings: what is cached by it is found again."""
    return _BUILDERS[name](settings)


def _classification(settings: TaskSettings) -> Task:
    if settings.class_weights or settings.label_smoothing:
        return WeightedClassification(settings.weights, settings.label_smoothing)
    return CLASSIFICATION


_BUILDERS: Mapping[str, Callable[[TaskSettings], Task]] = {
    "classification": _classification,
    "multi-label": lambda settings: MultiLabel(),
    "regression": lambda settings: Regression(settings.scale, settings.outputs, settings.squared_error),
    "segmentation": lambda settings: Segmentation(settings.ignore),
}


def _refuse_settings_of_others(settings: TaskSettings, task: str) -> None:
    for field, value in settings.model_dump().items():
        owner = OWNERS.get(field, task)
        if owner != task and value != TaskSettings.model_fields[field].default:
            raise BadInput(
                f"task.{hyphenated(field)}: given {shown(value)}, which has an effect only on {owner}, and "
                f"the task is {task}"
            )


def needs_scale(task: Task) -> bool:
    """Whether a task predicts numbers, and does not know how far off is far."""
    return isinstance(task, Regression) and not task.scale


def check_scored(task: Task) -> None:
    """Refuse a task whose scores nobody could work out: one that predicts numbers, without a scale."""
    if isinstance(task, Regression):
        task.check_scale()


@lru_cache(maxsize=8)
def scaled(task: Task, scale: float) -> Task:
    """Return a task that predicts numbers with the scale if it has none of its own; others as they are.

    The same object for the same arguments: clients that have the same task are told by it.
    """
    return task.scaled(scale) if isinstance(task, Regression) and not task.scale else task


def scale_of(targets: Tensor) -> float:
    """Return the standard deviation of targets: of several numbers each, the root of their mean variance.

    Examples
    --------
    >>> import torch
    >>> scale_of(torch.tensor([1.0, 3.0]))
    1.0
    """
    rows = targets.double().reshape(len(targets), -1)
    return float(rows.var(dim=0, correction=0).mean().sqrt())


def figures_of(settings: TaskSettings, task: Task, num_outputs: int, num_groups: int) -> Figures:
    """Return the figures that a task is judged by.

    Raises
    ------
    BadInput
        If a metric is not one of the task's, or does not add up over clients.
    """
    headline = settings.metric or task.headline
    auto = settings.metrics == "auto"
    plain = auto and isinstance(task, type(CLASSIFICATION)) and headline == task.figure
    if plain or (settings.metrics == "none" and headline == task.figure):
        return Figures(task, num_outputs, num_groups, (), headline)
    known = tuple(task.metrics(num_outputs))
    wanted = known if auto or settings.metrics == "all" else settings.wanted
    wanted = () if settings.metrics == "none" else wanted
    for key, name in (("metric", headline), *(("metrics", name) for name in wanted)):
        if name not in {task.figure, *known}:
            allowed = ", ".join((task.figure, *known))
            raise BadInput(f"task.{key}: given {shown(name)}, the task ({task.name}) has {allowed}")
    names = tuple(name for name in known if name in {headline, *wanted})
    figures = Figures(task, num_outputs, num_groups, names, headline)
    if not figures.is_one_number(headline):
        raise BadInput(
            f"task.metric: given {shown(headline)}, which is a table; allowed a metric that is one number"
        )
    return figures
