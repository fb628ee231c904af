"""app/deployment/bundles.py: a bundle that is not allowed is refused before it is imported, and is answered
for.

The bundle here cares for no policy: its ClientApp tells what the node was started with. Flower's own program
for a ClientApp runs it, as a SuperNode's executor has it run, but for the requests to the SuperNode.
"""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.config import get_project_dir
from flwr.supernode.runtime import run_clientapp as clientapp

from app.cli import executing
from app.deployment import executor
from app.deployment.bundles import ANY, Allowed
from app.simulation.grid import take_identity
from strategies.core.errors import BadInput

MANIFEST = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "greedy"
version = "1.0.0"
description = "tells everything"
license = { text = "none" }
dependencies = ["flwr>=1.40"]
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "greedy.app:server"
clientapp = "greedy.app:app"
[tool.flwr.app.config]
"""
CODE = """
from pathlib import Path
Path({marker!r}).write_text("imported")
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.query()
def tell(message, context):
    told = dict(context.node_config)
    return Message(RecordDict({{"config": ConfigRecord(told)}}), reply_to=message)
"""


class Node:
    """A SuperNode as far as one task goes: hands out a message, and takes the answer down in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker, self.answered = folder / "imported", folder / "answer.json"
        files: dict[str, bytes | Path] = {
            "pyproject.toml": MANIFEST.encode(),
            "greedy/__init__.py": b"",
            "greedy/app.py": CODE.format(marker=str(self.marker)).encode(),
        }
        self.content = build_fab_from_files(files)[0]
        self.hash = hashlib.sha256(self.content).hexdigest()
        self.claimed, self.node_config = self.hash, {"client-id": "a"}

    def pull_task_input(self, client: object) -> tuple[Any, ...]:
        take_identity()
        message = Message(RecordDict({"config": ConfigRecord({})}), 1, "query")
        run = SimpleNamespace(run_id=1, fab_id="somebody/greedy", fab_version="1.0.0")
        fab = SimpleNamespace(content=self.content, hash_str=self.claimed)
        return message, Context(1, 1, dict(self.node_config), RecordDict(), {}), run, fab

    def push_message(self, client: object, message: Message, context: Context) -> None:
        told = {"error": message.error.reason} if message.has_error() else dict(message.content["config"])
        self.answered.write_text(json.dumps(told), encoding="utf-8")

    def work(self, allowed: Allowed) -> dict[str, str]:
        """Have the task worked on in a process of its own; return what was answered."""
        _, status = os.waitpid(
            executor._fork("127.0.0.1:9", "token", executor.forget_own_modules, allowed), 0
        )
        assert os.waitstatus_to_exitcode(status) >= 0
        told: dict[str, str] = json.loads(self.answered.read_text(encoding="utf-8"))
        return told


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    found = Node(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    beat = SimpleNamespace(start=lambda: None, stop=lambda: None, is_running=False)
    monkeypatch.setattr(clientapp, "HeartbeatSender", lambda *_: beat)
    monkeypatch.setattr(clientapp, "push_task_output", lambda **_: None)
    for name in ("pull_task_input", "push_message"):
        monkeypatch.setattr(clientapp, name, getattr(found, name))
    return found


pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
OTHER = "0a" * 32


def test_any_bundle_is_run_where_none_is_named(node: Node) -> None:
    """So the bundle of this file works, and would tell."""
    assert node.work(ANY) == {"client-id": "a"}
    assert node.marker.exists()


def test_a_bundle_that_is_not_allowed_is_never_imported_and_answered_with_the_reason(node: Node) -> None:
    told = node.work(Allowed(frozenset({OTHER})))
    assert f"bundle {node.hash[:16]}… is refused: this node allows {OTHER[:16]}…" in told["error"]
    assert not node.marker.exists()
    assert not (node.folder / "flwr" / "apps").exists()


def test_a_bundle_that_claims_the_hash_of_an_allowed_one_is_refused(node: Node) -> None:
    node.claimed = OTHER
    assert "is refused" in node.work(Allowed(frozenset({OTHER})))["error"]
    assert not node.marker.exists()


def test_an_allowed_bundle_is_run_and_follows_the_policy(node: Node) -> None:
    policy = node.folder / "policy.toml"
    policy.write_text(f'privacy.epsilon = 1\nexecutor.bundles = ["{node.hash}"]', encoding="utf-8")
    assert node.work(Allowed.of([], policy)) == {"client-id": "a", "privacy.policy": str(policy)}
    assert node.marker.exists()


def test_an_allowed_bundle_that_names_another_s_folder_is_refused(node: Node) -> None:
    """What is allowed came along; what would be imported lies elsewhere, under a name of the server's."""
    node.claimed = OTHER
    assert "the run names the bundle" in node.work(Allowed(frozenset({node.hash})))["error"]
    assert not node.marker.exists()


@pytest.mark.parametrize("other", ["greedy/app.py", "greedy/more.py"])
def test_a_folder_that_was_there_before_and_holds_something_else_is_refused(node: Node, other: str) -> None:
    """Flower takes it as it is: eight digits of the hash make its name."""
    folder = get_project_dir("somebody/greedy", "1.0.0", node.hash)
    for name in ("pyproject.toml", "greedy/__init__.py", "greedy/app.py", other):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CODE.format(marker=str(node.marker)) if name == other else "", encoding="utf-8")
    assert "holds something else than the bundle" in node.work(Allowed(frozenset({node.hash})))["error"]
    assert not node.marker.exists()


def test_another_policy_than_the_node_s_is_refused(node: Node) -> None:
    policy = node.folder / "policy.toml"
    policy.write_text("privacy.epsilon = 1", encoding="utf-8")
    node.node_config["privacy-policy"] = "/etc/other.toml"
    assert (
        "the node was started with /etc/other.toml, lethe executor with"
        in node.work(Allowed.of([], policy))["error"]
    )


def test_what_is_refused_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor goes on; the child that is forked answers for the message."""
    monkeypatch.setattr(executor, "_warm_up", lambda: None)
    monkeypatch.setattr(executor, "_next_task", lambda client: ("token", "ff" * 32))
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    monkeypatch.setattr(executor, "_fork", lambda *_: child)
    stops = iter([False, True])
    executor.serve(1, lambda: next(stops), Allowed(frozenset({OTHER})))
    said = capsys.readouterr().err
    assert said == "lethe executor: bundle ffffffffffffffff… is refused: this node allows 0a0a0a0a0a0a0a0a…\n"


def test_a_policy_that_cannot_be_used_ends_the_executor_before_it_serves(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Allowed.of([], tmp_path / "none.toml")


def test_what_is_no_sum_cannot_be_allowed() -> None:
    with pytest.raises(BadInput, match=r"^--allow: given '0A', allowed 64 hexadecimal digits"):
        executing.executor(allow=["0A"])
