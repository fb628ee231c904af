"""The folder of a forgetting, ``forget/<name>/``: its name, its files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.forgettings.documents import Audit, Result
from app.forgettings.names import AUDIT, CERTIFICATE, RESULT
from strategies.core.errors import BadInput, RunCorrupt
from strategies.core.names import short_hash
from strategies.runs.documents import read_checked
from strategies.runs.files import read_bytes
from strategies.runs.folder import MODEL, PRUNED, RunFolder
from strategies.runs.home import MARKER, place
from unlearning.guarantees import guarantee_of
from unlearning.registry import names, traits_of
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings
from unlearning.traits.base import UNCHANGED

_LONGEST = 100


@dataclass(frozen=True)
class StoredForgetting:
    """A forgetting in its folder `path`, with all of its ``result.json``.

    `after` names the forgetting whose model it started from (empty: the run's own model); `forgotten` are the
    earlier requests, in order.
    """

    path: Path
    request: ForgetRequest
    method: str
    after: str
    forgotten: tuple[ForgetRequest, ...]
    result: Mapping[str, Any]

    @property
    def model_path(self) -> Path:
        """The file with the model after forgetting."""
        return self.path / MODEL

    @property
    def seconds(self) -> float:
        """Wall-clock time of the method."""
        return float(self.result["seconds"])


def forgetting_paths(folder: RunFolder) -> list[Path]:
    """Return the folders of a run's forgettings, by name."""
    home = folder.path / "forget"
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def forgetting_name(request: ForgetRequest, method: str, after: str = "") -> str:
    """Return the name of the folder of a forgetting; `after` names the one that it started from, if any.

    >>> first = forgetting_name(ForgetRequest(clients=("3",)), "distill")
    >>> first, forgetting_name(ForgetRequest(classes=(7,)), "finetune", first)
    ('client-3-distill', 'client-3-distill+class-7-finetune')
    """
    own = f"{request.name}-{method}"
    if len(f"{after}+{own}") > _LONGEST:
        after = f"after={short_hash(after)}"
    return f"{after}+{own}" if after else own


def read_forgetting(folder: RunFolder, name: str) -> StoredForgetting:
    """Return the forgetting with a name.

    Raises
    ------
    BadInput
        If the run holds none of that name.
    RunCorrupt
        If its file is damaged.
    """
    path = place(folder.path / "forget", name)
    if not (path / RESULT).exists():
        known = [n for n in folder.forget_requests() if (folder.path / "forget" / n / RESULT).exists()]
        raise BadInput(
            f"run '{folder.name}': no forgetting '{name}'; known: {', '.join(known) or 'none so far'}"
        )
    result = read_result(path)
    return StoredForgetting(
        path,
        ForgetRequest.from_json(result["request"]),
        result["method"],
        result.get("after", ""),
        tuple(ForgetRequest.from_json(each) for each in result.get("forgotten", ())),
        result,
    )


def has_forgetting(folder: RunFolder, name: str, settings: ForgetSettings) -> bool:
    """Whether a complete forgetting is there that was made with these settings."""
    path = folder.path / "forget" / name
    if not all((path / file).exists() for file in (RESULT, MODEL, CERTIFICATE)):
        return False
    return ForgetSettings.stored(read_forgetting(folder, name).result["settings"]) == settings


def read_result(path: Path) -> dict[str, Any]:
    """Return ``result.json`` of a forgetting's folder.

    Raises
    ------
    RunCorrupt
        If it is missing or damaged.
    """
    result = read_checked(path / RESULT, Result)
    if after := result.get("after", ""):
        try:
            place(path.parent, after)
        except BadInput as error:
            raise RunCorrupt(f"{path / RESULT}: damaged at 'after' ({error})") from None
    return result


def lineage_of(folder: RunFolder, name: str) -> str:
    """Return the lineage that clients' own models belong to after a forgetting.

    If nothing had to be forgotten, that is the lineage of the model before; with an empty name, the run's.
    """
    while name:
        result = read_result(place(folder.path / "forget", name))
        if not result.get("details", {}).get(UNCHANGED):
            return name
        name = result.get("after", "")
    return ""


def is_retrained(folder: RunFolder, name: str) -> bool:
    """Whether a forgetting retrained the model, or, with nothing to forget, the one before it did."""
    while name:
        result = read_result(place(folder.path / "forget", name))
        if not result.get("details", {}).get(UNCHANGED):
            return traits_of(result["method"]).is_reference
        name = result.get("after", "")
    return True


def guarantee_in(folder: RunFolder, result: Mapping[str, Any]) -> str:
    """Return what a forgetting guarantees on a run; empty for an unknown method.

    Raises
    ------
    RunCorrupt
        If the run's mask is damaged.
    """
    method, mask = result["method"], folder.read_mask()
    origin = "" if mask is None else mask.metadata["origin"]
    unchanged = bool(result.get("details", {}).get(UNCHANGED))
    return guarantee_of(traits_of(method), origin, unchanged=unchanged) if method in names() else ""


def read_audit(path: Path) -> dict[str, Any] | None:
    """Return ``audit.json`` of a forgetting's folder; None if there is none.

    Raises
    ------
    RunCorrupt
        If it is damaged.
    """
    return read_checked(path / AUDIT, Audit) if (path / AUDIT).exists() else None


def outermost(folder: RunFolder) -> RunFolder:
    """Return the run that this one lies in, as pruned runs and those with other seeds do; else itself."""
    path = folder.path.absolute()
    while (path.parent.parent / MARKER).exists():
        path = path.parent.parent
    return folder if path == folder.path.absolute() else RunFolder(path)


def record_path(folder: RunFolder, name: str) -> Path | None:
    """Return the path of a file that is kept once, in the outermost run; None if it has none."""
    path = outermost(folder).path / name
    return path if path.exists() else None


def unpruned(folder: RunFolder) -> RunFolder:
    """Return the run that a pruned one was made from, which has the same data; else the run itself."""
    path = folder.path.absolute()
    return RunFolder(path.parent.parent) if path.parent.name == PRUNED else folder


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256.

    Raises
    ------
    RunCorrupt
        If it is missing or cannot be read.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def runs_in(folder: RunFolder) -> list[RunFolder]:
    """Return a run and all that lie in it."""
    return [RunFolder(marker.parent) for marker in sorted(folder.path.rglob(MARKER))]
