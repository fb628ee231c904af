"""Writes a new project from a template."""

import keyword
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from strategies.core.errors import BadInput, LetheError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")  # What Flower takes as the name of a folder
_RESERVED = frozenset({"app", "strategies", "unlearning", "lethe", "tests"})
_COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "test_project.py": "tests/test_project.py",
    "init.py": "{package}/__init__.py",
    "server_app.py": "{package}/server_app.py",
    "client_app.py": "{package}/client_app.py",
}


@dataclass(frozen=True)
class Template:
    """A kind of project.

    Parameters
    ----------
    summary
        What its example trains, in one sentence.
    values
        What the common files need of it.
    """

    summary: str
    values: dict[str, object]


TEMPLATES = {
    "tabular": Template(
        "Tells ill patients from healthy ones by four measurements, over hospitals that keep their tables.",
        {"rounds": 10, "clients": 5, "learning_rate": 0.1, "local_test_share": 0.0, "own_test": False},
    ),
    "images": Template(
        "Tells three kinds of drawings apart, over clients that keep their images.",
        {"rounds": 8, "clients": 5, "learning_rate": 0.1, "local_test_share": 0.0, "own_test": False},
    ),
    "minimal": Template(
        "Trains a linear model on each node's numbers, and measures it on what the nodes hold out.",
        {"rounds": 5, "clients": 5, "learning_rate": 0.5, "local_test_share": 0.2, "own_test": True},
    ),
}


def write_project(name: str, template: str, parent: Path) -> Path:
    """Write a project into a new folder below `parent`, and return that folder.

    Raises
    ------
    BadInput
        If the name cannot be that of a Flower project or of a package, the folder is there, or there is no
        such template; nothing is written then.
    LetheError
        If the disk does not take it.
    """
    package = name.replace("-", "_")
    _check_name(name, package)
    if template not in TEMPLATES:
        raise BadInput(f"--template: given {template!r}, allowed {', '.join(TEMPLATES)}")
    folder = parent / name
    if folder.exists():
        raise BadInput(f"{folder}: is there already; give another name, or remove it")
    texts = _rendered(name, package, template)
    try:
        for place, text in texts.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise LetheError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder


def _check_name(name: str, package: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("-"):
        raise BadInput(
            f"name: given {name!r}, allowed 1 to 32 lower-case letters, digits and hyphens, a letter first"
        )
    taken = package in _RESERVED or keyword.iskeyword(package) or package in sys.stdlib_module_names
    if taken or find_spec(package) is not None:
        raise BadInput(
            f"name: given {name!r}, but there is a Python module {package!r} already; choose another"
        )


def _rendered(name: str, package: str, template: str) -> dict[str, str]:
    """Return the text of each file by its path in the project's folder."""
    chosen = TEMPLATES[template]
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )  # Python and TOML
    values = {"name": name, "package": package, "summary": chosen.summary, **chosen.values}
    sources = {place: f"common/{source}" for source, place in _COMMON.items()}
    sources["{package}/project.py"] = f"{template}/project.py"
    root = files("app.templates")
    return {
        place.format(package=package): environment.from_string(
            root.joinpath(f"{source}.jinja").read_text(encoding="utf-8")
        ).render(values)
        for place, source in sources.items()
    }
