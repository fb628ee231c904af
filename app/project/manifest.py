"""The manifest of a user's Flower project: ``[tool.lethe]`` names the project, the app's config the keys.

::

    [tool.lethe]
    project = "hospital.project:project"

    [tool.flwr.app.config]
    run.rounds = 20
"""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.config.run_config import RunConfig, check_key, flattened, parse_overrides, read_toml
from strategies.core.errors import BadInput
from strategies.core.ours import hidden_in
from strategies.core.settings import Scalar
from strategies.runs.files import text_of

MANIFEST = "pyproject.toml"
CONFIG_FILE = "run.config-file"


@dataclass(frozen=True)
class Manifest:
    """What a folder says of its project.

    Parameters
    ----------
    reference
        ``module:object``.
    values
        The keys of the run config that it holds.
    """

    reference: str
    values: Mapping[str, Scalar] = field(default_factory=dict)

    @staticmethod
    def in_folder(folder: Path) -> "Manifest | None":
        """Return the manifest of a folder; None if it has none, or none that names a project.

        Raises
        ------
        BadInput
            If it cannot be read, or ``[tool.lethe]`` holds something else than a project.
        """
        file = folder / MANIFEST
        if not file.is_file():
            return None
        try:
            tools: dict[str, Any] = tomllib.loads(text_of(file.read_bytes())).get("tool", {})
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{file}: cannot be read as TOML: {error}") from None
        own = tools.get("lethe")
        if own is None:
            return None
        if not isinstance(own, dict) or set(own) != {"project"} or not isinstance(own["project"], str):
            raise BadInput(f'{file}: [tool.lethe] holds {own!r}, allowed project = "module:object"')
        config = tools.get("flwr", {}).get("app", {}).get("config", {})
        return Manifest(own["project"], dict(flattened(config)))


def config_here(folder: Path, file: Path | None, overrides: list[str]) -> RunConfig:
    """Return the run config of a command that is started in a folder; its project can be imported then.

    Of the same key, the manifest's project says least, then the file that ``run.config-file`` names, then
    `file`, then the overrides.

    Raises
    ------
    BadInput
        If something cannot be read, or is refused.
    """
    manifest = Manifest.in_folder(folder)
    given = {} if manifest is None else {"run.project": manifest.reference, **manifest.values}
    if manifest is not None and (line := hidden_in(folder)) is not None:
        raise BadInput(line)
    if manifest is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    later = {**({} if file is None else read_toml(file)), **parse_overrides(overrides)}
    named = with_config_file({**given, **_place(later)}, folder)
    return RunConfig.from_flat({**named, **later, **_place(named)})


def with_config_file(values: Mapping[str, Scalar], folder: Path) -> dict[str, Scalar]:
    """Return the keys of a run with those of the file that ``run.config-file`` names above them.

    Raises
    ------
    BadInput
        If the file cannot be read, or has a key that is not known. No value of such a key is shown: who
        starts a run may not be allowed to read the file.
    """
    name = str(values.get(CONFIG_FILE, ""))
    if not name:
        return dict(values)
    path = (folder / Path(name).expanduser()).absolute()
    more = read_toml(path)
    for key in more:
        check_key(key, key)
    return {**values, **more, CONFIG_FILE: str(path)}


def _place(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {CONFIG_FILE: values[CONFIG_FILE]} if CONFIG_FILE in values else {}
