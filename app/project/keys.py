"""Which keys of the section ``data`` have an effect beside a project's own data."""

from dataclasses import replace

from app.config.run_config import RunConfig
from app.data.keys import InUse, check_keys, in_use
from app.project.project import Project
from strategies.core.errors import BadInput

_READ_BUILT_IN = {
    "data.name": "",
    "data.path": "; data(node) finds it in node.config",
    "data.classes": "; name them by lethe.Project(classes=)",
    "data.target": "; name it by lethe.Project(target=)",
    "data.targets": "; the project's task says it",
    "data.folder-of-clients": "; data(node) returns a node's own",
    "data.lazy": "; a torch Dataset is read lazily",
    "data.root": "",
    "data.download": "",
    "data.per-class": "; data or lethe.Project(partition=) can leave examples out",
}
"""Keys that say how built-in data are read, and what stands in their place in a project."""
_SPREADS = ("data.partition", "data.alpha", "data.shards-per-client", "data.classes-per-client")
_PUBLIC = ("data.public", "data.public-classes", "data.public-labels", "data.public-limit")


def check_data_keys(config: RunConfig, project: Project, targets: str) -> None:
    """Refuse keys that the run's sources of data do not read; `targets` are what the task makes of them.

    Raises
    ------
    BadInput
        Naming the first of them, and what reads it.
    """
    flat, defaults = config.to_flat(), RunConfig().to_flat()
    built_in = project.data is None
    used = in_use(config.data) if built_in else _of_project(project)
    used = replace(used, without={**used.without, **_in_their_place(config, project)})
    if not built_in:
        for key, instead in _READ_BUILT_IN.items():
            if flat[key] != defaults[key]:
                raise BadInput(
                    f"{key}: given {flat[key]!r}, but the project brings the data; leave it out{instead}"
                )
    elif config.data.classes and targets == "numbers":
        raise BadInput(
            f"data.classes: given '{config.data.classes}', but the targets are numbers (data.targets, or the "
            "task), of which there are no classes"
        )
    check_keys(flat, defaults, used)


def _of_project(project: Project) -> InUse:
    if project.by_node:
        return InUse("a project whose data(node) gives each node its own", frozenset({"project"}), {})
    without = dict.fromkeys(_SPREADS if project.partition else (), "lethe.Project(partition=)")
    return InUse("the project brings the data", frozenset({"project", "split", "spread"}), without)


def _in_their_place(config: RunConfig, project: Project) -> dict[str, str]:
    """Return what stands in the place of keys on the server's own examples."""
    without: dict[str, str] = {}
    if project.test is not None:
        without |= dict.fromkeys(("data.test-share", "data.test-limit"), "lethe.Project(test=)")
    if project.public is not None:
        without |= dict.fromkeys(_PUBLIC, "lethe.Project(public=)")
    elif project.data is not None and config.data.public_name is not None:
        without |= dict.fromkeys(_PUBLIC, "a share of them, or lethe.Project(public=),")
    return without
