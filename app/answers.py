"""What answering a request leaves in a folder of its own, ``forget/<name>/``: its name, its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.answer_documents import Audit, Result
from strategies import wire
from strategies.errors import BadInput, RunCorrupt
from strategies.run_documents import read_checked
from strategies.run_folder import MODEL, RunFolder
from strategies.run_home import MARKER, place
from unlearning.request import ForgetRequest

RESULT = "result.json"
"""Name of the file with what a forgetting took."""
AUDIT = "audit.json"
"""Name of the file with what an audit measured."""
CERTIFICATE = "certificate.json"
"""Name of the file with the signed certificate."""

_LONGEST = 100


@dataclass(frozen=True)
class Answer:
    """A request that was served.

    Parameters
    ----------
    path
        Its folder.
    request
        What was forgotten.
    method
        By which method.
    after
        Name of the answer whose model it started from; empty: the run's own model.
    forgotten
        What had been forgotten before, in order.
    result
        All of ``result.json``.
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


def answer_paths(folder: RunFolder) -> list[Path]:
    """Return the folders of a run's answers, by name."""
    home = folder.path / "forget"
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def answer_name(request: ForgetRequest, method: str, after: str = "") -> str:
    """Return the name of an answer's folder.

    Parameters
    ----------
    request, method
        What was forgotten, and how.
    after
        Name of the answer whose model it starts from; empty: the run's own model.

    Examples
    --------
    >>> first = answer_name(ForgetRequest(clients=("3",)), "distill")
    >>> first, answer_name(ForgetRequest(classes=(7,)), "finetune", first)
    ('client-3-distill', 'client-3-distill+class-7-finetune')
    """
    own = f"{request.name}-{method}"
    if len(f"{after}+{own}") > _LONGEST:
        after = f"after={wire.short_hash(after)}"
    return f"{after}+{own}" if after else own


def read_answer(folder: RunFolder, name: str) -> Answer:
    """Return the answer of a name.

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
    return Answer(
        path,
        ForgetRequest.from_json(result["request"]),
        result["method"],
        result.get("after", ""),
        tuple(ForgetRequest.from_json(each) for each in result.get("forgotten", ())),
        result,
    )


def read_result(path: Path) -> dict[str, Any]:
    """Return what a forgetting took, from ``result.json`` in its folder.

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


def read_audit(path: Path) -> dict[str, Any] | None:
    """Return what an audit measured, from ``audit.json`` in a forgetting's folder; None where there is none.

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


def runs_in(folder: RunFolder) -> list[RunFolder]:
    """Return a run and all that lie in it."""
    return [RunFolder(marker.parent) for marker in sorted(folder.path.rglob(MARKER))]
