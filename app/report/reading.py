"""Reads the content of a report from a run's folder, whatever state the run is in."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.config.run_config import read_toml
from app.forgettings.documents import Comparison, Suspects
from app.forgettings.folder import guarantee_in, outermost, read_audit, read_result
from app.forgettings.lineage import described, warnings_of
from app.forgettings.names import AUDIT, CERTIFICATE, RESULT, SUSPECTS
from app.forgettings.origin import read_origin
from app.report.triggered import TriggeredImage, read_triggered
from strategies.core.errors import BadInput, RunCorrupt
from strategies.core.settings import Scalar, split_list
from strategies.core.wire import client_sort_key
from strategies.log.update_log import UpdateLog
from strategies.runs.documents import Pruned, read_checked
from strategies.runs.files import read_json
from strategies.runs.folder import MODEL, PRUNING, REPORT, SUMMARY, RunFolder
from strategies.runs.home import MARKER
from unlearning.request import ForgetRequest

RETRAIN = "retrain"
"""Name of the method that every other is compared with."""
_FILES = {
    MODEL: "the model",
    SUMMARY: "the summary",
    "metrics.jsonl": "the figures of every round",
    "config.toml": "the run config",
}
"""File in the run's folder -> what it is; for links."""
_FORGETTING_FILES = {CERTIFICATE: "the certificate", MODEL: "the model after forgetting", AUDIT: "the audit"}


@dataclass(frozen=True)
class Link:
    """A link from the report to a file beside it: a relative address, and words."""

    words: str
    href: str


@dataclass(frozen=True)
class Forgetting:
    """A forgetting in a folder `name`, with its ``result.json`` and ``audit.json`` (None: not audited).

    `triggered` are triggered test images with the models' predictions; `guarantee` is the method's on this
    run; `links` lead to its files.
    """

    name: str
    result: Mapping[str, Any]
    audit: Mapping[str, Any] | None
    triggered: tuple[TriggeredImage, ...]
    guarantee: str = ""
    links: tuple[Link, ...] = ()

    @property
    def method(self) -> str:
        """Name of the forgetting method."""
        return str(self.result["method"])

    @property
    def request(self) -> Mapping[str, Any]:
        """The request that was served."""
        request: Mapping[str, Any] = self.result["request"]
        return request

    @property
    def after(self) -> str:
        """Name of the forgetting that it started from; empty for the run's own model."""
        return str(self.result.get("after") or "")

    @property
    def clients(self) -> tuple[str, ...]:
        """Clients that the request names, wholly or for some of their examples."""
        return tuple(self.request.get("clients") or self.request.get("samples") or ())


@dataclass(frozen=True)
class Contributions:
    """How far each client's update moved the model in each round.

    `lengths` has, by (client-id, round), the norm of the client's update times its weight in the round; a
    client that was not aggregated in a round has no entry. `averaging` says whether the model moved by the
    weighted sum of the updates in every round; otherwise it moved by other lengths.
    """

    clients: tuple[str, ...]
    rounds: tuple[int, ...]
    lengths: Mapping[tuple[str, int], float]
    averaging: bool

    def total(self, client_id: str) -> float:
        """Return the sum over the rounds."""
        return sum(self._by_client.get(client_id, ()))

    def num_rounds(self, client_id: str) -> int:
        """Return in how many rounds a client's update counted."""
        return len(self._by_client.get(client_id, ()))

    @cached_property
    def whole(self) -> float:
        """Sum over all clients and rounds."""
        return sum(self.lengths.values())

    @cached_property
    def _by_client(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for (client, _), length in self.lengths.items():
            found.setdefault(client, []).append(length)
        return found


@dataclass(frozen=True)
class RunRecord:
    """A run as it lies in its folder; empty where a file is missing.

    `config_toml` and `settings` are the resolved config as a document and by key; `rounds` the lines of
    ``metrics.jsonl``; `comparisons` the documents of ``compare/`` by name; `problems` a sentence for each
    file that could not be read; `pruning` is ``pruning.json``; `parent` names the run that this one lies
    in; `origin` says which run it comes from, empty: from no other. `links` lead to the run's files and to
    the report of the run that it comes from; `suspects` is ``suspects.json``.
    """

    name: str
    created: str
    config_toml: str
    settings: Mapping[str, Scalar]
    rounds: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    forgettings: tuple[Forgetting, ...]
    comparisons: tuple[Mapping[str, Any], ...]
    contributions: Contributions | None
    problems: tuple[str, ...]
    pruning: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""
    origin: str = ""
    links: tuple[Link, ...] = ()
    suspects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label_counts(self) -> dict[str, list[int]]:
        """Examples of each class by client-id, in order; without clients that did not tell their labels."""
        clients: Mapping[str, Any] = self.summary.get("clients") or {}
        ordered = sorted(clients, key=client_sort_key)
        return {c: list(clients[c]["label-counts"]) for c in ordered if clients[c].get("label-counts")}

    @property
    def faults(self) -> dict[str, list[str]]:
        """The faults of each client, in words."""
        rounds = [fault for line in self.rounds for fault in line.get("faults") or ()]
        faults: list[Mapping[str, Any]] = self.summary.get("faults") or rounds
        by_client: dict[str, list[str]] = {}
        for fault in faults:
            by_client.setdefault(str(fault["client"]), []).append(f"{fault['scope']}: {fault['reason']}")
        return by_client

    @property
    def poisoned(self) -> frozenset[str]:
        """Clients that were made to attack."""
        if self.settings.get("attack.kind", "none") == "none":
            return frozenset()
        return frozenset(split_list(str(self.settings.get("attack.clients", ""))))

    @property
    def forgotten(self) -> frozenset[str]:
        """Clients that a request names, wholly or for some of their examples."""
        return frozenset(client for forgetting in self.forgettings for client in forgetting.clients)

    def marks(self, client_id: str) -> str:
        """Return the marks of a client, in words: attacker, forgotten; empty for most."""
        words = [
            w
            for w, group in (("attacker", self.poisoned), ("forgotten", self.forgotten))
            if client_id in group
        ]
        return ", ".join(words)


def read_run(folder: RunFolder) -> RunRecord:
    """Read all that a report needs.

    Raises
    ------
    RunCorrupt
        If a file that is there is damaged; a damaged update log becomes a problem of the record instead,
        because the rest of the run can still be shown.
    """
    problems: list[str] = []
    forgettings = _read_forgettings(folder, problems)
    problems += _held_elsewhere(folder, forgettings)
    return RunRecord(
        name=folder.name,
        created=str(read_json(folder.path / "run.json").get("created", "")),
        config_toml=folder.read_config(),
        settings=read_toml(folder.path / "config.toml"),
        rounds=tuple(line for line in folder.read_metrics() if "round" in line),
        summary=folder.read_summary() if (folder.path / "summary.json").exists() else {},
        forgettings=forgettings,
        suspects=read_checked(path, Suspects) if (path := folder.path / SUSPECTS).exists() else {},
        comparisons=tuple(
            read_checked(path, Comparison) for path in sorted((folder.path / "compare").glob("*.json"))
        ),
        contributions=_read_contributions(folder, problems),
        problems=tuple(problems),
        pruning=read_checked(path, Pruned) if (path := folder.path / PRUNING).exists() else {},
        parent="" if (outer := outermost(folder)) is folder else outer.name,
        origin="" if (origin := read_origin(folder)) is None else described(origin),
        links=(*_links(folder, folder.path, _FILES), *_relations(folder)),
    )


def _links(folder: RunFolder, place: Path, files: Mapping[str, str]) -> Iterator[Link]:
    """Yield links to those files in a place that are there."""
    for name, words in files.items():
        if (place / name).exists():
            yield link_between(folder.path, place / name, words)


def link_between(place: Path, target: Path, words: str) -> Link:
    """Return a link from a page in a folder to a file, relative."""
    return Link(words, quote(Path(os.path.relpath(target.absolute(), place.absolute())).as_posix()))


def _relations(folder: RunFolder) -> Iterator[Link]:
    """Yield links to the run that this one comes from, and to the one that it lies in, if they are there."""
    found = {}
    if (outer := outermost(folder)) is not folder:
        found[outer.path] = f"run {outer.name}, which this one lies in"
    if (origin := read_origin(folder)) is not None and (origin.path / MARKER).exists():
        found[origin.path] = f"run {origin.run}, which this one comes from"
    for path, words in found.items():
        report = path / REPORT
        yield link_between(folder.path, report if report.exists() else path, words)


def _held_elsewhere(folder: RunFolder, forgettings: tuple[Forgetting, ...]) -> list[str]:
    """Return a sentence for each run that comes from this one and still holds what was forgotten here."""
    requests = (ForgetRequest.from_json(forgetting.request) for forgetting in forgettings)
    found = (warning for request in requests for warning in warnings_of(folder, request))
    return [f"{warning[0].upper()}{warning[1:]}." for warning in dict.fromkeys(found)]


def _read_forgettings(folder: RunFolder, problems: list[str]) -> tuple[Forgetting, ...]:
    found = []
    for name in folder.forget_requests():
        path = folder.forget_folder(name)
        if (path / RESULT).exists():
            found.append(_read_forgetting(folder, path))
        else:
            problems.append(f"forget/{name} holds no result: that forgetting was not finished.")
    return tuple(sorted(found, key=lambda forgetting: forgetting.method == RETRAIN))


def _read_forgetting(folder: RunFolder, path: Path) -> Forgetting:
    result = read_result(path)
    guarantee = guarantee_in(folder, result)
    links = tuple(_links(folder, path, _FORGETTING_FILES))
    return Forgetting(path.name, result, read_audit(path), read_triggered(path), guarantee, links)


def _read_contributions(folder: RunFolder, problems: list[str]) -> Contributions | None:
    if not folder.log_path.is_dir():
        return None
    try:
        log = UpdateLog.open(folder.log_path)
        entries, averaging, purged = log.entries(), set(log.averaging_rounds()), log.purged()
    except (RunCorrupt, BadInput) as error:
        problems.append(f"The update log could not be read: {error}.")
        return None
    rounds = log.rounds()
    problems += [
        f"The updates of client {i} were purged from the log, {since}." for i, since in purged.items()
    ]
    lengths = {(e.client_id, e.round): e.weight * e.norm for e in entries if e.client_id not in purged}
    return (
        Contributions(
            tuple(i for i in log.clients() if i not in purged),
            tuple(rounds),
            lengths,
            averaging >= set(rounds),
        )
        if lengths
        else None
    )
