"""What a run's folder says of a client beside its update log, and how a purge takes it out.

Erased are the checkpoints, with what clients keep between rounds, the model that a forgetting left with the
client, the report, the ranking of suspects, and what trackers keep in the folder, whose formats nobody can
take one client out of.
Out of the summary, the rounds and the events of the work go the client's own figures, what is said of it in
words, and what it reported where a round was its alone; out of the audits, which of its examples can be told
best. What stays says who took part when, as the log does, and that the client was forgotten. A file that is
written anew is overwritten as it was before.
"""

import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.forgettings.folder import forgetting_paths, read_audit
from app.forgettings.names import AUDIT, SUSPECTS
from app.simulation.kept_models import CLIENTS
from strategies.log.update_log import UpdateLog
from strategies.runs import files, journal
from strategies.runs.folder import REPORT, RunFolder
from strategies.runs.json_lines import parsed
from strategies.runs.names import METRICS, SUMMARY, TRACKED
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server import reports
from unlearning.request import ForgetRequest

ERASED = "erased with the client's updates"
"""In place of what was said of a client."""
_REPORTED = {*reports.TRAINING, *reports.PRIVATE}
_FORMER = ".former"


@dataclass(frozen=True)
class Traces:
    """The clients that are taken out, and the rounds in which nobody else was used."""

    clients: Collection[str]
    alone: frozenset[int]

    @staticmethod
    def of(clients: Collection[str], lines: Collection[Mapping[str, Any]]) -> "Traces":
        """Return what is looked for in a run, given the lines of its rounds."""
        own = {*clients}
        rounds = (line for line in lines if line.get("accepted") and {*line["accepted"]} <= own)
        return Traces(clients, frozenset(int(line["round"]) for line in rounds))

    def named_in(self, text: str) -> bool:
        """Say whether a text speaks of one of the clients.

        Examples
        --------
        >>> some = Traces(["7"], frozenset())
        >>> [some.named_in(text) for text in ("client 7: no", "clients 3, 7", "client 17, round 7.5")]
        [True, True, False]
        """
        return any(
            re.search(rf"(?i)\bclients?\b[^;]*(?<![\w.-]){re.escape(client)}(?![\w-]|\.\w)", text)
            for client in self.clients
        )

    def without_own(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Return figures by client without those of the clients."""
        return {client: value for client, value in figures.items() if client not in self.clients}

    def faults(self, faults: Collection[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return faults that no longer say what the clients did."""
        return [{**fault, "reason": ERASED} if self._is_told_of(fault) else dict(fault) for fault in faults]

    def _is_told_of(self, fault: Mapping[str, Any]) -> bool:
        return fault["client"] in self.clients or self.named_in(str(fault["reason"]))


def erase_traces(run: RunFolder, clients: Collection[str]) -> None:
    """Take out of a run's folder, but for its log, what it says of some clients; can be repeated.

    Raises
    ------
    LetheError
        If a file cannot be overwritten.
    """
    run.erase_checkpoint()
    files.erase(run.path / REPORT)
    files.erase(run.path / SUSPECTS)
    lines = run.read_metrics()
    traces = Traces.of(clients, lines)
    _erase_models(run, clients)
    _erase_tracked(run.path / TRACKED)
    for path in journal.journals(run.path):
        if not journal.is_written(path):  # That of the purge itself
            _rewrite(path, [_json(event) for event in _events(path, traces)])
    if lines:
        _rewrite(run.path / METRICS, [_json(_round(line, traces)) for line in lines])
    summary = _summary(run, traces, max((int(line.get("round", 0)) for line in lines), default=0))
    replace_erasing(run.path / SUMMARY, lambda: run.write_summary(summary))


def erase_exposed(run: RunFolder, clients: Collection[str]) -> list[str]:
    """Take the positions of some clients' examples out of a run's audits; can be repeated.

    Returns
    -------
    list of str
        The forgettings with an audit that named such positions, before or on an earlier call: the
        certificates of these are to be made anew.

    Raises
    ------
    LetheError
        If a file cannot be overwritten.
    """
    changed = []
    for path in forgetting_paths(run):
        document = read_audit(path)
        shadows = None if document is None else document.get("shadows")
        if document is None or not shadows or not {*_named(document)} & {*clients}:
            continue
        left = [each for each in shadows["most-exposed"] if each["client"] not in clients]
        shown = {**document, "shadows": {**shadows, "most-exposed": left}}
        replace_erasing(path / AUDIT, partial(files.write_json, path / AUDIT, shown))
        changed.append(path.name)
    return changed


def _named(document: Mapping[str, Any]) -> tuple[str, ...]:
    return ForgetRequest.from_json(document["request"]).named_clients


def _summary(run: RunFolder, traces: Traces, last: int) -> dict[str, Any]:
    summary = run.read_summary()
    known = summary.get("clients", {})
    summary["clients"] = {i: {} if i in traces.clients else known[i] for i in known}
    if "client-models" in summary:
        summary["client-models"] = traces.without_own(summary["client-models"])
    for measured in summary.get("evaluations", {}).values():
        if "clients" in measured:
            measured["clients"] = traces.without_own(measured["clients"])
    if last in traces.alone:
        summary["final"] = _unreported(summary["final"])
    summary["faults"] = traces.faults(summary.get("faults", ()))
    summary["notes"] = [note for note in summary.get("notes", ()) if not traces.named_in(note)]
    if run.log_path.is_dir():
        summary["log"] = {**(summary.get("log") or {}), **UpdateLog.open(run.log_path).summary()}
    return summary


def _round(line: Mapping[str, Any], traces: Traces) -> dict[str, Any]:
    """Return the line of a round; what its clients have spent of their privacy stays, as it is spent."""
    found = dict(line)
    if "clients" in found:
        found["clients"] = traces.without_own(found["clients"])
    if "faults" in found:
        found["faults"] = traces.faults(found["faults"])
    return _unreported(found) if found.get("round") in traces.alone else found


def _unreported(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key not in _REPORTED}


def _events(path: Path, traces: Traces) -> Iterator[dict[str, Any]]:
    """Yield the events of a work without what they say of the clients; a damaged line is left out."""
    trains = False
    for content in bytes(files.read_bytes(path)).split(b"\n"):
        event = parsed(content)
        if event is None or traces.named_in(str(event.get("text", ""))):
            continue
        trains = trains or event.get("kind") == "train"
        for key in ("message", "reason"):
            if traces.named_in(str(event.get(key, ""))):
                event[key] = ERASED
        if "values" in event and trains and event["message"] in {f"round {n}" for n in traces.alone}:
            event["values"] = _unreported(event["values"])
        yield event


def _erase_models(run: RunFolder, clients: Collection[str]) -> None:
    """Take the models that forgettings left with the clients out of their folders."""
    nodes = {str(node) for client, node in run.read_nodes().items() if client in clients}
    for path in (each / CLIENTS for each in forgetting_paths(run)):
        if path.exists():
            held = read_sealed(path).tensors
            left = {node: tensor.clone() for node, tensor in held.items() if node not in nodes}
            replace_erasing(path, partial(write_sealed, path, left))


def _erase_tracked(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            files.erase(path)
    if folder.is_dir():
        shutil.rmtree(folder)


def _json(line: Mapping[str, Any]) -> str:
    return files.to_json(dict(line)) + "\n"


def _rewrite(path: Path, lines: Collection[str]) -> None:
    replace_erasing(path, lambda: files.write_text(path, "".join(lines)))


def replace_erasing(path: Path, write: Callable[[], object]) -> None:
    """Have a file replaced, then overwrite what it held.

    What it held keeps a name meanwhile, so that an interrupted purge finds it again.
    """
    former = path.with_name(path.name + _FORMER)
    try:
        if not former.exists():
            former.hardlink_to(path)
    except OSError as error:
        raise files.not_written(former, error) from error
    write()
    files.erase(former)
