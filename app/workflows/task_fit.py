"""What a task or the server's data lack that the run config asks for; said before any work."""

from app.config.run_config import RunConfig
from app.data import ServerData
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.registry import traits_of
from strategies.task import OutputSpec, Task


def check_task(config: RunConfig, task: Task) -> None:
    """Refuse a run config that needs more of the task than it has.

    Raises
    ------
    BadInput
        Naming the key, what was given, and what it needs.
    """
    flat, called = config.to_flat(), f"the targets of the task ({task.name}) are no class labels"
    strategy = config.strategy.name
    need = traits_of(strategy).task_need
    wanted = None if need is None else need(flat)
    if wanted is not None and not (task.labelled if wanted.what == "labels" else task.vectors):
        lacks = called if wanted.what == "labels" else f"the task ({task.name}) has outputs of another shape"
        instead = f"; {wanted.instead}" if wanted.instead else ""
        raise BadInput(f"strategy.name: given {shown(strategy)}, which {wanted.why}, but {lacks}{instead}")
    if task.labelled:
        return
    if config.attack.kind != "none":
        raise BadInput(
            f"attack.kind: given {shown(config.attack.kind)}, which changes class labels, and {called}; "
            'allowed "none"'
        )
    if config.hard.kind == "mislabelled":
        raise BadInput(
            f'hard.kind: given "mislabelled", which changes class labels, and {called}; allowed "rare"'
        )
    if config.analytics.enabled:
        raise BadInput(
            f"analytics.enabled: given true, which asks for the distribution of labels, and {called}; "
            "allowed false"
        )
    if config.run.workflow == "analytics" and config.analytics.column == "label":
        raise BadInput(f'analytics.column: given "label", and {called}; allowed "brightness"')


def check_server_data(config: RunConfig, task: Task, data: ServerData) -> None:
    """Refuse a run whose server has not the data, or does not know the classes, that it needs.

    Raises
    ------
    BadInput
        Naming the key, what is needed, and how to give it.
    """
    outputs = task.outputs(OutputSpec(data.num_groups))
    if 1 <= outputs < task.least_outputs:
        raise BadInput(
            f"run.project: its task ({task.name}) tells classes apart, and the data have {data.num_groups}: "
            f"{', '.join(data.class_names) or 'without a name'}; at least {task.least_outputs} are needed"
        )
    if outputs < 1:
        raise BadInput(
            f"run.project: its task ({task.name}) has an output for each class, and the server cannot tell "
            'the classes from the data; name them: lethe.Project(classes=("…", "…"))'
        )
    strategy, policy = config.strategy.name, config.model.batch_norm
    need = traits_of(strategy).public_need(config.to_flat())
    give = "but the server has none; give some: data.public = <name of a data set>, or Project(public=…)"
    if need and data.public is None:
        raise BadInput(f"strategy.name: given {shown(strategy)}, which {need}, {give}")
    if policy == "recalibrate" and data.public is None:
        raise BadInput(
            f"model.batch-norm: given {shown(policy)}, which sets statistics on public data, {give}"
        )
