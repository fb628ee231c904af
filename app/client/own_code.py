"""Whose code a node runs: its bundle's, or what its own config names; never what a message names."""

from collections.abc import Mapping

from app.config.run_config import RunConfig
from app.project import LoadedProject, Workload, bind, bound, loaded_from
from app.project.loading import holds
from strategies.core import wire
from strategies.core.errors import SettingsRefused
from strategies.core.settings import Scalar


def project_here(config: RunConfig, own: Scalar | None) -> LoadedProject | None:
    """Return the project of this process, which its bundle has bound, or that the node's own config names.

    Raises
    ------
    SettingsRefused
        If the run names another one: a server's word imports nothing.
    """
    found = bound()
    if found is None and own is not None:
        found = loaded_from(str(own))
        bind(found)
    wanted = config.run.project
    if wanted and (found is None or not (wanted == found.reference or holds(wanted, found.project))):
        raise SettingsRefused(
            f"run.project: given {wanted!r}, but a node runs the project of its bundle "
            "(lethe.client_app), or the one that its own config names"
        )
    return found


def check_code(work: Workload, message_config: Mapping[str, object]) -> None:
    """Refuse to work for a server whose project is another one, or that has one where this node has none.

    Raises
    ------
    SettingsRefused
        Naming both hashes.
    """
    expected, here = str(message_config.get(wire.PROJECT, "")), work.sha256
    if wire.NUM_GROUPS in message_config and expected != here:
        raise SettingsRefused(
            f"run.project: this node's code is not the server's (SHA-256 {_short(here)}, expected "
            f"{_short(expected)}); both must run the same bundle, or have the same package installed"
        )


def _short(sha256: str) -> str:
    return f"{sha256[:12]}…" if sha256 else "none"
