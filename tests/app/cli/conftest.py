"""Workflows that do no work, and a way to run a command line in this process."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import app
from app.cli.entry import run
from app.config.run_config import RunConfig
from strategies.runs.folder import RunFolder
from tests.app.report.run_folders import AFTER, BEFORE, RETRAIN, add_forgetting, add_rounds, finish
from unlearning.request import ForgetRequest


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def lethe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run ``lethe`` with these arguments and the runs below `tmp_path`."""

    def command(*arguments: str, home: bool = True) -> Ended:
        placed = ["--home", str(tmp_path)] if home else []
        status = run([*arguments, *placed])
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return command


@dataclass
class Workflows:
    """Workflows that only leave the files that real ones leave; `calls` says what was asked for."""

    home: Path
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    fails: BaseException | None = None
    answers_in: RunFolder | None = None
    served: str | None = None

    def train(self, config: RunConfig, observer: Any) -> RunFolder:
        """Leave a finished run, or one that has only begun if it is to fail."""
        self.calls.append(("train", config))
        folder = RunFolder.create(config.run.home, config.run.name or "made-up", config.to_toml())
        return self._finished(folder, observer)

    def resume(self, folder: RunFolder, observer: Any) -> RunFolder:
        """Finish a run."""
        self.calls.append(("resume", folder.name))
        return self._finished(folder, observer)

    def forget(
        self, folder: RunFolder, request: ForgetRequest, settings: Any, observer: Any, *, after: str = ""
    ) -> str:
        """Leave the answer to a request."""
        self.calls.append(("forget", request, settings, *filter(None, [after])))
        print("a library that prints")  # noqa: T201
        observer.phase("forget", 1)
        observer.advance("1 of 1", {})
        self._fail()
        answered = self.answers_in or folder
        return add_forgetting(answered, settings.method, request.to_json(), audited=False).name

    def audit(
        self,
        folder: RunFolder,
        request: ForgetRequest,
        methods: list[str],
        settings: Any,
        observer: Any,
        *,
        after: str = "",
    ) -> None:
        """Leave audits."""
        self.calls.append(("audit", request, methods, settings, *filter(None, [after])))
        for method in methods:
            add_forgetting(folder, method, request.to_json())

    def check_purge(self, folder: RunFolder, request: ForgetRequest, settings: Any, after: str) -> str | None:
        """Say what was served before, if anything was."""
        self.calls.append(("check_purge", folder.path, request, settings.method, after))
        return self.served

    def choose_method(self, folder: RunFolder, request: ForgetRequest, settings: Any, after: str) -> Any:
        """Name the method."""
        return (
            settings.model_copy(update={"method": "fast-distill"}) if settings.method == "auto" else settings
        )

    def purge(self, folder: RunFolder, name: str, observer: Any) -> list[dict[str, Any]]:
        """Say that one log was purged."""
        self.calls.append(("purge", folder.path, name))
        return [{"log": "log", "clients": ["1"], "time": "2026-01-01T00:00:00Z"}]

    def demo(self, observer: Any, overrides: list[str]) -> SimpleNamespace:
        """Leave nothing but figures."""
        self.calls.append(("demo", overrides))
        models: Mapping[str, Any] = {"before": BEFORE, "after": AFTER, "retrain": RETRAIN}
        audit = {**models, "notes": [], "disparity": 0.5, "verdict": {"text": "closer", "disparity": 0.25}}
        audits = {
            f"client-{client}-fast-distill": {
                **audit,
                "method": "fast-distill",
                "request": {"kind": "client", "clients": [client]},
            }
            for client in ("3", "5")
        }
        return SimpleNamespace(
            folder=RunFolder(self.home / "demo"), audits=audits, report=self.home / "r.html"
        )

    def list_runs(self, home: Path) -> list[dict[str, Any]]:
        """Return two runs."""
        finished = {"strategy": "fedavg", "rounds": 15, "test-accuracy": 96.25, "seconds": 1.5}
        row = {"name": "b", "state": "finished", **finished, "forgettings": ["client-3-distill"]}
        return [{"name": "a", "state": "unfinished"}, row] if home.name != "nothing" else []

    def _finished(self, folder: RunFolder, observer: Any) -> RunFolder:
        observer.phase(f"train {folder.name}", 2)
        observer.advance("round 1", {"test-accuracy": 40.0})
        observer.note("client \x1b[31m3\x1b[0m is late")
        self._fail()
        add_rounds(folder)
        finish(folder)
        return folder

    def _fail(self) -> None:
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def workflows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workflows:
    """Put workflows that do no work in the place of the real ones."""
    stand_in = Workflows(tmp_path)
    monkeypatch.setitem(sys.modules, "app.workflows", stand_in)
    monkeypatch.setattr(app, "workflows", stand_in, raising=False)
    return stand_in
