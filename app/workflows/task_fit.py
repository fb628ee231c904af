"""What a task lacks that the run config asks for; said before any work."""

from app.config.run_config import RunConfig
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.registry import traits_of
from strategies.task import Task


def check_task(config: RunConfig, task: Task) -> None:
    """Refuse a run config that needs more of the task than it has.

    Raises
    ------
    BadInput
        Naming the key, what was given, and what it needs.
    """
    flat, called = config.to_flat(), f"the targets of the task ({task.name}) are none"
    strategy = config.strategy.name
    need = traits_of(strategy).task_need
    wanted = None if need is None else need(flat)
    if wanted is not None and not (task.labelled if wanted.what == "labels" else task.vectors):
        lacks = called if wanted.what == "labels" else f"the task ({task.name}) has outputs of another shape"
        needs = f"which {wanted.why}"
        raise BadInput(f"strategy.name: given {shown(strategy)}, {needs}, but {lacks}")
    if task.labelled:
        return
    if config.attack.kind != "none":
        raise BadInput(
            f"attack.kind: given {shown(config.attack.kind)}, which changes class labels, and {called}; "
            'allowed "none"'
        )
    if config.analytics.enabled:
        raise BadInput(
            f"analytics.enabled: given true, which asks for the distribution of labels, and {called}; "
            "allowed false"
        )
    if config.run.workflow == "analytics" and config.analytics.column == "label":
        raise BadInput(f'analytics.column: given "label", and {called}; allowed "brightness"')
