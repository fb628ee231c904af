"""The folder of one run: everything a run leaves behind, each file whole at any moment, nothing a pickle.

- ``config.toml``: the resolved run config
- ``run.json``: what this folder is: format, version, time of creation, id; written last, so that it marks a
  whole folder
- ``initial.safetensors``, ``model.safetensors``: the model before the first and after the last round
- ``staying.safetensors``: the part of the model that does not travel, where there is one
- ``mask.safetensors``: which weights are left, where the run is pruned
- ``checkpoint.safetensors``: the last complete round (see `strategies.runs.checkpoint`)
- ``states/``: what clients keep between messages, where that is much (see `strategies.runs.client_states`)
- ``kept.safetensors``: the checkpoint of the best round, while a run that keeps it is trained
- ``metrics.jsonl``: one JSON object per line, in order of time
- ``summary.json``, ``report.html``: the run in numbers and in pictures
- ``run.lock``: held by who works on the run (see `strategies.runs.run_lock`)
- ``nodes.json``: the node behind each client-id
- ``data.json``: the files that the data were read from, and the names of the classes
- ``log/``: the update log (see `strategies.log.update_log`)
- ``forget/<request>-<method>/``: what answering a request left behind
- ``compare/<request>.json``: methods compared
- ``pruned/<how>/``, ``seeds/<seed>/``: the run pruned, or with another seed: each a run folder itself

Resuming takes four steps: `open`, `read_checkpoint`, `rewind_metrics(checkpoint.round)`, and the log's
`rewind`.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs import files
from strategies.runs.documents import Round, Summary, check, read_checked
from strategies.runs.home import MARKER, expand, find, folders_in, make, make_free, make_numbered, place
from strategies.runs.json_lines import append_line, read_lines, rewind_lines
from strategies.runs.names import CONFIG, METRICS, MODEL, REPORT, SUMMARY
from strategies.runs.sealed import check_sealed

if TYPE_CHECKING:  # what holds tensors imports torch, for which a list of runs should not wait
    from strategies.core.wire import State
    from strategies.runs.checkpoint import Checkpoint
    from strategies.runs.client_states import StateFiles
    from strategies.runs.tensor_file import TensorFile

__all__ = [
    "CONFIG",
    "FORMAT",
    "MODEL",
    "NODES",
    "PRUNED",
    "PRUNING",
    "REPORT",
    "SCALE",
    "STAYING",
    "SUMMARY",
    "TARGET_SCALE",
    "VERSION",
    "RunFolder",
]

FORMAT = "lethe-run"
VERSION = 1
"""Of the folder's layout; another version is refused."""

SCALE = "scale.json"
"""The means and deviations of a table's columns, where clients have summed them (data.scale)."""
TARGET_SCALE = "target-scale.json"
"""The scale of a regression's targets, where clients have summed it (task.scale-from)."""
STAYING = "staying.safetensors"
"""Name of the file with the part of a run's model that does not travel, where there is one."""
NODES = "nodes.json"
"""Name of the file with the node behind each client-id."""
PRUNED = "pruned"
"""Name of the folder of a run that holds the runs made from it by pruning."""
OTHER_SEED = "retrain-seed-"
"""Begins the name of a file with the model of a retraining with another seed, which an audit compares."""
PRUNING = "pruning.json"
"""Name of the file in the folder of a pruned run that says how it was pruned."""


@final
class RunFolder:
    """An existing run folder; use `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._initial = path / "initial.safetensors"
        self._mask = path / "mask.safetensors"
        self._checkpoint = path / "checkpoint.safetensors"
        self._kept = path / "kept.safetensors"
        self._metrics = path / METRICS
        self._states: StateFiles | None = None

    @staticmethod
    def create(
        home: Path | str, name: str, config_toml: str, label: str = "run", *, numbered: bool = False
    ) -> "RunFolder":
        """Make the folder of a new run.

        Parameters
        ----------
        home
            The folder that holds all runs; made where it is missing.
        name
            The run's name; empty: local time and label.
        label
            What a made-up name ends in, usually the strategy.
        numbered
            Whether a number is added to the name if it is taken.

        Raises
        ------
        BadInput
            If the name is no plain folder name, leads out of the home, or is taken.
        LetheError
            If the disk does not take the folder.
        """
        home = expand(home)
        try:
            if name:
                path = make_numbered(place(home, name)) if numbered else make(place(home, name))
            else:
                path = make_free(home, label)
        except OSError as error:
            raise files.not_written(home, error) from error
        files.write_text(path / CONFIG, config_toml)
        described = {"format": FORMAT, "version": VERSION, "config-sha256": _sha256(config_toml)}
        described |= {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "id": secrets.token_hex(16)}
        files.write_json(path / MARKER, described)
        return RunFolder(path)

    @staticmethod
    def open(run: Path | str, home: Path | str | None = None) -> "RunFolder":
        """Return the folder of an existing run.

        Parameters
        ----------
        run
            Its name, looked for in `home` first, or its path (write ``./name`` for a folder nearby).
        home
            The folder that holds all runs; None: `run` is a path.

        Raises
        ------
        BadInput
            If there is no such run, or it is of another version.
        RunCorrupt
            If the folder is half written or damaged.
        """
        path = find(str(run), expand(home) if home is not None else None)
        if not path.is_dir() or not any(path.iterdir()):
            raise BadInput(f"run '{run}': {path} is empty or no folder; expected the folder of a run")
        if not (path / MARKER).exists():
            what = (
                "only half written; make the run anew"
                if (path / CONFIG).exists()
                else "not the folder of a run"
            )
            raise BadInput(f"run '{run}': {path / MARKER} is missing, so this is {what}")
        marker = files.read_json(path / MARKER)
        _check_version(path / MARKER, marker)
        if _sha256(files.read_text(path / CONFIG)) != marker.get("config-sha256"):
            raise RunCorrupt(
                f"{path / CONFIG}: damaged or edited since the run was made; restore it from a copy"
            )
        return RunFolder(path)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def run_id(self) -> str:
        """The run's unique id, in hexadecimal."""
        marker = files.read_json(self.path / MARKER)
        return str(marker.get("id", marker["config-sha256"]))

    @property
    def log_path(self) -> Path:
        """Where the update log lies, if the run keeps one."""
        return self.path / "log"

    def read_config(self) -> str:
        """Return the resolved config, as TOML."""
        return files.read_text(self.path / CONFIG)

    @property
    def has_initial(self) -> bool:
        """Whether the model before the first round is there."""
        return self._initial.exists()

    def write_initial(self, state: "State") -> str:
        """Keep the model before the first round; returns its SHA-256."""
        return _write_sealed(self._initial, state)

    def read_initial(self) -> "State":
        """Return the model before the first round; RunCorrupt if it is missing or damaged."""
        return _read_sealed(self._initial).tensors

    def check_initial(self) -> None:
        """Check the file of that model without reading it into tensors; raises as `read_initial` does."""
        check_sealed(self._initial)

    def write_staying(self, state: "State") -> None:
        """Keep the part of the model that does not travel; nothing where there is none."""
        if state:
            _write_sealed(self.path / STAYING, state)

    def read_staying(self) -> "State":
        """Return the part of the model that does not travel, perhaps nothing; RunCorrupt if it is damaged."""
        path = self.path / STAYING
        return _read_sealed(path).tensors if path.exists() else {}

    def write_model(self, state: "State") -> str:
        """Keep the model after the last round; returns its SHA-256."""
        return _write_sealed(self.path / MODEL, state)

    def read_model(self) -> "State":
        """Return the model after the last round.

        Raises
        ------
        BadInput
            If the run has not been finished.
        RunCorrupt
            If the file is damaged.
        """
        return _read_sealed(self._finished(MODEL)).tensors

    def check_model(self) -> None:
        """Check the file of the model without reading it into tensors; raises as `read_model` does."""
        check_sealed(self._finished(MODEL))

    def write_mask(self, masks: "State", origin: str) -> str:
        """Keep the masks of a pruned run, by parameter, and how they were chosen; returns their SHA-256."""
        return _write_sealed(self._mask, masks, {"origin": origin})

    def read_mask(self) -> "TensorFile | None":
        """Return the masks of a pruned run, by parameter, with their ``origin``; None for a dense one.

        Raises
        ------
        RunCorrupt
            If the file is damaged.
        """
        return _read_sealed(self._mask) if self._mask.exists() else None

    def write_checkpoint(self, checkpoint: "Checkpoint") -> None:
        """Replace the checkpoint, all of it or nothing; of large states of clients, what has changed."""
        from strategies.runs.checkpoint import files_named, write_checkpoint
        from strategies.runs.client_states import FOLDER, StateFiles, delete_others

        if self._states is None:
            self._states = StateFiles(self.path / FOLDER)
        table = write_checkpoint(self._checkpoint, checkpoint, self._states)
        if (self.path / FOLDER).exists():
            kept = files_named(self._kept) if self._kept.exists() else []
            delete_others(self.path / FOLDER, [table, kept])

    def read_checkpoint(self) -> "Checkpoint | None":
        """Return the last checkpoint; None where no round was completed.

        Raises
        ------
        RunCorrupt
            If the file is damaged.
        BadInput
            If it is of another version.
        """
        return _read_checkpoint(self._checkpoint) if self._checkpoint.exists() else None

    def keep_checkpoint(self) -> None:
        """Keep the checkpoint as it is now, in place of one that was kept before."""
        files.write_chunks(self._kept, [files.read_bytes(self._checkpoint)])

    def read_kept(self) -> "Checkpoint | None":
        """Return the checkpoint that was kept, as `read_checkpoint` does; None if there is none."""
        return _read_checkpoint(self._kept) if self._kept.exists() else None

    def drop_kept(self) -> None:
        """Delete the checkpoint that was kept; nothing if there is none."""
        from strategies.runs.checkpoint import files_named
        from strategies.runs.client_states import FOLDER, delete_others

        if self._kept.exists():
            self._kept.unlink()
            if (self.path / FOLDER).exists():
                delete_others(self.path / FOLDER, [files_named(self._checkpoint)])

    def erase_checkpoint(self) -> None:
        """Overwrite and delete the checkpoint, which holds what clients keep between rounds.

        Raises
        ------
        LetheError
            If it cannot be overwritten.
        """
        from strategies.runs.client_states import FOLDER, erase_all

        erase_all(self.path / FOLDER)
        files.erase(self._checkpoint)
        files.erase(self._checkpoint.with_name(self._checkpoint.name + files.TEMPORARY))

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to the metrics; numbers that are not finite become null.

        Raises
        ------
        LetheError
            If the disk does not take it.
        """
        append_line(self._metrics, line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of the metrics; a last line that was cut off while it was written is left out.

        Raises
        ------
        RunCorrupt
            If any other line is damaged, or a field of a round's line is wrong.
        """
        lines = read_lines(self._metrics)
        for number, line in enumerate(lines, start=1):
            if "round" in line:
                check(Round, line, f"{self._metrics}: line {number}")
        return lines

    def rewind_metrics(self, last_round: int) -> None:
        """Drop the lines of rounds after `last_round` and a cut-off line; lines without `round` stay."""
        rewind_lines(self._metrics, last_round)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary, all of it or nothing."""
        files.write_json(self.path / SUMMARY, summary)

    def read_summary(self) -> dict[str, Any]:
        """Return the summary.

        Raises
        ------
        BadInput
            If the run has not been finished.
        RunCorrupt
            If the file is damaged.
        """
        return read_checked(self._finished(SUMMARY), Summary)

    def _finished(self, name: str) -> Path:
        """Return the path of a file that a finished run has; BadInput if it is missing."""
        path = self.path / name
        if not path.exists():
            raise BadInput(f"run '{self.name}': {path} is missing; the run is not finished, resume it")
        return path

    def write_nodes(self, nodes: Mapping[str, int]) -> None:
        """Keep which node is behind each client-id."""
        files.write_json(self.path / NODES, nodes)

    def read_nodes(self) -> dict[str, int]:
        """Return the node behind each client-id; empty where none has been written down.

        Raises
        ------
        RunCorrupt
            If the file is damaged.
        """
        path = self.path / NODES
        nodes = files.read_json(path) if path.exists() else {}
        if not all(type(node_id) is int for node_id in nodes.values()):
            raise RunCorrupt(f"{path}: damaged, expected a number of a node for each client-id")
        return nodes

    def write_report(self, html: str) -> Path:
        """Replace the report, all of it or nothing, and return where it lies."""
        files.write_text(self.path / REPORT, html)
        return self.path / REPORT

    def forget_folder(self, request: str) -> Path:
        """Return the folder for the answer to a request, made where it is missing.

        Parameters
        ----------
        request
            The request's name, a plain folder name.

        Raises
        ------
        BadInput
            If the name is not one, or leads out of the run's folder.
        """
        path = place(self.path / "forget", request)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def forget_requests(self) -> list[str]:
        """Return the names of the requests that were answered, or half answered.

        A folder that holds retrainings with other seeds alone is none: a comparison keeps them there.
        """
        place = self.path / "forget"
        return [name for name in folders_in(place) if not _is_for_comparison(place / name)]


def _is_for_comparison(place: Path) -> bool:
    names = [path.name for path in place.iterdir()]
    return bool(names) and all(name.startswith(OTHER_SEED) for name in names)


def _write_sealed(path: Path, state: "State", metadata: Mapping[str, str] | None = None) -> str:
    from strategies.runs.tensor_file import write_sealed

    return write_sealed(path, state, metadata or {})


def _read_sealed(path: Path) -> "TensorFile":
    from strategies.runs.tensor_file import read_sealed

    return read_sealed(path)


def _read_checkpoint(path: Path) -> "Checkpoint":
    from strategies.runs.checkpoint import read_checkpoint

    return read_checkpoint(path)


def _check_version(path: Path, marker: Mapping[str, Any]) -> None:
    if marker.get("format") != FORMAT:
        raise BadInput(
            f"{path}: format '{marker.get('format')}', expected '{FORMAT}'; this is not the folder of a run"
        )
    if marker.get("version") != VERSION:
        raise BadInput(
            f"{path}: version {marker.get('version')} of the run folder, this Lethe reads version {VERSION}"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
