"""Where a run comes from: the run, or the forgetting in one, whose model it began with or went on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.forgettings.documents import StoredRequest
from app.forgettings.folder import read_forgetting, record_path, sha256_of
from app.forgettings.names import ORIGIN
from strategies.runs.documents import Count, Document, read_checked, rounds_in
from strategies.runs.files import write_json
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.home import MARKER
from strategies.server.exclusion import Drop
from unlearning.request import ForgetRequest

How = Literal["continued", "weights"]
"""``continued``: its log goes on from the other's; ``weights``: it began with the other's model."""


class _Document(Document):
    how: How
    run: str
    id: str
    path: str
    forgetting: str
    sha256: str
    rounds: Count
    forgotten: list[StoredRequest]


@dataclass(frozen=True)
class Origin:
    """Where a run comes from.

    Parameters
    ----------
    run, run_id, path
        The other run's name, its unique id, and where its folder was.
    forgetting
        The forgetting in it whose model was taken; empty: the run's own model.
    sha256
        Of the file with that model.
    rounds
        Rounds of the other run that are in the model.
    forgotten
        What the model was made without, in order.
    """

    how: How
    run: str
    run_id: str
    path: Path
    forgetting: str
    sha256: str
    rounds: int
    forgotten: tuple[ForgetRequest, ...]

    @staticmethod
    def at(folder: RunFolder, forgetting: str, how: How) -> "Origin":
        """Return the origin of a run that begins with, or goes on from, a finished run or a forgetting in it.

        Raises
        ------
        BadInput
            If there is none of that name, or the run is not finished.
        """
        summary, forgotten, model = folder.read_summary(), forgotten_in(folder), folder.path / MODEL
        if forgetting:
            earlier = read_forgetting(folder, forgetting)
            forgotten, model = (*earlier.forgotten, earlier.request), earlier.model_path
        rounds = rounds_in(summary)
        place = folder.path.absolute()
        return Origin(how, folder.name, folder.run_id, place, forgetting, sha256_of(model), rounds, forgotten)

    @property
    def place(self) -> str:
        """The run, or the forgetting in it, as commands name it."""
        return f"{self.run}/forget/{self.forgetting}" if self.forgetting else self.run

    @property
    def model_path(self) -> Path:
        """Where the file with the model was."""
        return self.path / "forget" / self.forgetting / MODEL if self.forgetting else self.path / MODEL

    def holds(self, request: ForgetRequest) -> bool:
        """Whether the model still holds something of what a request names."""
        gone = {client_id for each in self.forgotten for client_id in each.clients}
        drop = Drop.joined(each.drop for each in self.forgotten)
        samples = (
            position not in drop.indices.get(client_id, ())
            for client_id, positions in request.samples.items()
            if client_id not in gone
            for position in positions
        )
        return (
            not gone.issuperset(request.clients)
            or not set(drop.classes).issuperset(request.classes)
            or any(samples)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the origin as plain data."""
        return {
            "how": self.how,
            "run": self.run,
            "id": self.run_id,
            "path": str(self.path),
            "forgetting": self.forgetting,
            "sha256": self.sha256,
            "rounds": self.rounds,
            "forgotten": [request.to_json() for request in self.forgotten],
        }

    def stated(self) -> dict[str, Any]:
        """Return what a certificate states of it: everything but the path."""
        return {key: value for key, value in self.to_json().items() if key != "path"}


def write_origin(folder: RunFolder, origin: Origin) -> None:
    """Record where a new run comes from."""
    write_json(folder.path / ORIGIN, origin.to_json())


def read_origin(folder: RunFolder) -> Origin | None:
    """Return where a run, or the one that it lies in, comes from; None if it comes from no other.

    Raises
    ------
    RunCorrupt
        If the record is damaged.
    """
    if (path := record_path(folder, ORIGIN)) is None:
        return None
    found = read_checked(path, _Document)
    return Origin(
        found["how"],
        found["run"],
        found["id"],
        Path(found["path"]),
        found["forgetting"],
        found["sha256"],
        found["rounds"],
        _requests(found["forgotten"]),
    )


def forgotten_in(folder: RunFolder) -> tuple[ForgetRequest, ...]:
    """Return what a run was trained without, as it went on from a forgetting; empty for other runs."""
    origin = read_origin(folder)
    return origin.forgotten if origin is not None and origin.how == "continued" else ()


def weights_origin(place: str) -> Origin | None:
    """Return the origin of a run whose weights are in a place, as `model.weights` has it; None for a file.

    Raises
    ------
    BadInput
        If the place is in a folder of a run that is not whole.
    """
    path = Path(place)
    if not place or not path.is_dir():
        return None
    inside = path.parent.name == "forget"
    run = path.parent.parent if inside else path
    if not (run / MARKER).exists():
        return None
    return Origin.at(RunFolder(run), path.name if inside else "", "weights")


def _requests(documents: Sequence[Mapping[str, Any]]) -> tuple[ForgetRequest, ...]:
    return tuple(ForgetRequest.from_json(each) for each in documents)
