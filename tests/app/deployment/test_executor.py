"""app/deployment/executor.py: what a forked ClientApp takes over, and what it does not."""

import os
import shutil
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectUnavailableError,
    pull_and_inflate_object_from_tree,
)
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime import run_clientapp as clientapp

from app.deployment import executor
from app.deployment.bundles import ANY
from tests.fresh_starts import FreshStarts

_TAKEN = """
import sys
from app.deployment import executor
import app.client_app
executor.forget_own_modules()
sys.path.insert(0, {folder!r})
import app.client_app
import torch
print(app.client_app.BUNDLE)
"""


def test_the_bundle_s_code_is_used_and_not_what_was_imported_before(
    fresh_starts: FreshStarts, tmp_path: Path
) -> None:
    """A bundle of another version lies first on the path: its ClientApp is imported."""
    package = tmp_path / "app"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "client_app.py").write_text('BUNDLE = "the bundle\'s"\n')
    code = _TAKEN.format(folder=str(tmp_path))
    assert fresh_starts.run(code) == "the bundle's\n"


class _Refusing(BaseHTTPRequestHandler):
    """A SuperNode that has just begun to start."""

    asked: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.asked.append(time.monotonic())
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_supernode_that_is_not_ready_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the executor ends when it is told to."""
    monkeypatch.setattr(executor, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(executor, "_warm_up", lambda: None)
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        executor.serve(server.server_port, lambda: len(_Refusing.asked) >= 3)
    finally:
        server.shutdown()
        server.server_close()
    assert len(_Refusing.asked) == 3


def test_a_supernode_that_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(executor, "_warm_up", lambda: None)
    asked = iter([False, False, True])
    executor.serve(1, lambda: next(asked))
    assert next(asked, None) is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("end", "status"), [(None, 0), (SystemExit(3), 3), (ValueError("no"), 1)])
def test_a_task_is_worked_on_in_a_process_of_its_own(
    end: BaseException | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this project's modules forgotten; how it ends is the child's status, and the parent goes on."""

    def work(address: str, token: str, *, insecure: bool, parent_pid: int) -> None:
        known = any(name.startswith(("app.", "strategies.")) for name in sys.modules)
        (tmp_path / "said").write_text(f"{address} {token} {os.getppid() == parent_pid} {known}")
        if end is not None:
            raise end

    monkeypatch.setattr(executor, "run_clientapp", work)
    _, ended = os.waitpid(executor._fork("127.0.0.1:9", "token-7", executor.forget_own_modules, ANY), 0)
    assert os.waitstatus_to_exitcode(ended) == status
    assert (tmp_path / "said").read_text() == "127.0.0.1:9 token-7 True False"


def test_each_task_gets_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, forked = iter([("one", ""), ("", ""), ("two", "")]), list[str]()
    children = iter([os.posix_spawn("/bin/true", ["true"], os.environ) for _ in range(2)])
    monkeypatch.setattr(executor, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(executor, "_warm_up", lambda: None)
    monkeypatch.setattr(executor, "_next_task", lambda client: next(tokens))
    monkeypatch.setattr(
        executor, "_fork", lambda _, token, bundle, allowed: (forked.append(token), next(children))[1]
    )
    stops = iter([False, False, False, True])
    executor.serve(1, lambda: next(stops))
    assert forked == ["one", "two"]


ROOT = Path(executor.__file__).parents[2]
HASH = "0123456789abcdef"
_KEPT = """
import sys
from pathlib import Path
from app.deployment import executor
import app.client_app
before = app.client_app
executor.take_over(Path({folder!r}))
import app.client_app
import strategies.new
print(app.client_app is before, strategies.new.BUNDLE)
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle of this very code, where Flower unpacks it."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    folder = tmp_path / "apps" / f"lethe.lethe.0.1.0.{HASH[:8]}"
    for name in ("app", "strategies", "unlearning"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_bundle_of_the_very_code_that_runs_is_taken_over(bundle: Path) -> None:
    """One of part of it as well, but not one that is not unpacked."""
    shutil.rmtree(bundle / "app" / "cli")
    code = executor.OwnCode(ROOT)
    beginning = code.beginning(HASH)
    assert isinstance(beginning, partial)
    assert (beginning.func, beginning.args) == (executor.take_over, (bundle,))
    assert code.beginning("f" * 16) is executor.forget_own_modules
    assert code.beginning("") is executor.forget_own_modules


@pytest.mark.parametrize("change", ["changed", "more"])
def test_a_bundle_of_any_other_code_is_not(bundle: Path, change: str) -> None:
    code = executor.OwnCode(ROOT)
    if change == "changed":
        (bundle / "strategies" / "fedavg.py").write_bytes(b"# another\n")
    else:
        (bundle / "unlearning" / "another.py").write_bytes(b"")
    assert code.beginning(HASH) is executor.forget_own_modules


def test_a_bundle_without_this_projects_code_uses_what_was_imported(bundle: Path) -> None:
    for name in ("app", "strategies", "unlearning"):
        shutil.rmtree(bundle / name)
    (bundle / "ward").mkdir()
    (bundle / "ward" / "project.py").write_text("x = 1", encoding="utf-8")
    before = set(sys.modules)
    executor.OwnCode(ROOT).beginning(HASH)()
    assert set(sys.modules) == before


def test_what_was_not_imported_yet_comes_from_the_bundle(fresh_starts: FreshStarts, tmp_path: Path) -> None:
    package = tmp_path / "strategies"
    package.mkdir()
    (package / "new.py").write_text('BUNDLE = "the bundle\'s"\n')
    code = _KEPT.format(folder=str(tmp_path))
    assert fresh_starts.run(code) == "True the bundle's\n"


def test_what_is_not_there_yet_is_asked_for_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing twice, it is there after waits of 0.05 and 0.1 s, give or take Flower's fifth."""
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    message = Message(RecordDict({"c": ConfigRecord({"n": 1})}), 1, "train")
    objects = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    misses, waits = dict.fromkeys(objects, 2), list[float]()

    def pull(object_id: str) -> bytes:
        misses[object_id] -= 1
        if misses[object_id] >= 0:
            raise ObjectUnavailableError(object_id)
        return objects[object_id]

    wait = Event.wait

    def noted(event: Event, timeout: float | None = None) -> bool:
        if timeout is not None and sys._getframe(1).f_code.co_name == "pull_with_retries":
            waits.append(timeout)
            timeout = 0.0
        return wait(event, timeout)

    monkeypatch.setattr(Event, "wait", noted)
    monkeypatch.setattr(clientapp, "pull_and_inflate_object_from_tree", pull_and_inflate_object_from_tree)
    executor.ask_again_soon()
    tree = get_object_tree(message)
    found = clientapp.pull_and_inflate_object_from_tree(tree, pull, lambda _: None, return_type=Message)
    assert found.content == message.content
    assert len(waits) == 2 * len(objects)
    assert all(0.04 <= seconds <= 0.12 for seconds in waits)
