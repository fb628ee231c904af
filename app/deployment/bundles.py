"""Which bundles ``lethe executor`` runs: checked over the very bytes, before anything of them is unpacked.

A bundle's code comes from the server, and it reads the node's policy. So a policy is worth as much as the
code that reads it, and a node that does not trust the server says which code it runs.
"""

import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from flwr.app import Context
from flwr.cli.install import install_from_fab
from flwr.common.config import get_project_dir
from flwr.supernode.runtime import run_clientapp as clientapp

from app.client.policy import FILE, Policy, of_node
from strategies.core.errors import BadInput, LetheError

_INFO = ".info/"
"""Metadata of a bundle, which are not unpacked."""


@final
@dataclass(frozen=True)
class Allowed:
    """What an executor was started with.

    `bundles` are the SHA-256 of those that it runs; empty: any. Every client follows `policy`; None: what the
    node's config says.
    """

    bundles: frozenset[str] = frozenset()
    policy: Path | None = None

    @staticmethod
    def of(bundles: list[str], policy: Path | None) -> "Allowed":
        """Return the bundles allowed by name and by the policy, which is read here and now.

        Raises
        ------
        BadInput
            If the policy cannot be used.
        """
        own = () if policy is None else Policy.read(policy).bundles
        return Allowed(frozenset((*bundles, *own)), None if policy is None else policy.absolute())

    def refusal(self, bundle: str) -> str:
        """Return why a bundle with this SHA-256 is not run; empty if it is."""
        if not self.bundles or bundle in self.bundles:
            return ""
        listed = ", ".join(f"{each[:16]}…" for each in sorted(self.bundles))
        return f"bundle {bundle[:16]}… is refused: this node allows {listed}"

    def guard(self) -> None:
        """Let Flower unpack and import only allowed bundles here; have clients follow the policy."""
        pull, install = clientapp.pull_task_input, install_from_fab
        pulled: list[tuple[Context, Any, Any]] = []

        def remembered(client: Any) -> Any:
            found = pull(client)
            pulled.append((found[1], found[2], found[3]))
            return found

        def checked(content: bytes, **options: Any) -> Path:
            context, run, fab = pulled[-1]
            if reason := self.refusal(hashlib.sha256(content).hexdigest()):
                raise LetheError(reason)
            context.node_config = self.followed(context.node_config)
            path = install(content, **options)
            if self.bundles:
                _check_unpacked(content, path, get_project_dir(run.fab_id, run.fab_version, fab.hash_str))
            return path

        setattr(clientapp, pull.__name__, remembered)
        setattr(clientapp, install.__name__, checked)

    def followed(self, node_config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a node's config with the executor's policy in it.

        Raises
        ------
        BadInput
            If the node was started with another.
        """
        if self.policy is None:
            return dict(node_config)
        named = of_node(node_config, FILE)
        if named is not None and Path(str(named)).expanduser().absolute() != self.policy:
            raise BadInput(f"{FILE}: the node was started with {named}, lethe executor with {self.policy}")
        return {**node_config, FILE: str(self.policy)}


ANY = Allowed()
"""Whatever the server sends is run, and only the node's own config names a policy."""


def warn(reason: str) -> None:
    """Report a refused bundle on stderr."""
    sys.stderr.write(f"lethe executor: {reason}\n")
    sys.stderr.flush()


def _check_unpacked(content: bytes, path: Path, named: Path) -> None:
    """Refuse files that the bundle would be imported from and that are not the bundle.

    Flower names the folder by what the server says of the run and by 32 bits of the hash, and takes an
    existing folder as it is.
    """
    if path != named:
        raise LetheError(f"the run names the bundle {named.name}, but what came with it is {path.name}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.startswith(_INFO)}
    same = all((path / name).is_file() and (path / name).read_bytes() == data for name, data in files.items())
    more = [each for each in path.rglob("*.py") if str(each.relative_to(path)) not in files]
    if not same or more:
        raise LetheError(f"{path} holds something else than the bundle; remove it")
