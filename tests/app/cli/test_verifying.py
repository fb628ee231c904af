"""app/cli/verifying.py: what a certificate says, whether it holds, and the exit status."""

import json
import re
from pathlib import Path

import pytest

from app.workflows import purge
from strategies.runs.folder import RunFolder
from tests.app.cli.conftest import Command

ANSWER = Path("forget/client-2-subtract")


def test_a_certificate_that_holds(lethe: Command, small: RunFolder) -> None:
    ended = lethe("verify", str(small.path / ANSWER))
    lines = ended.out.splitlines()
    assert ended.status == 0
    assert lines[0].startswith("signature:        ok: Ed25519, SHA256:")
    assert [line.split()[-1] for line in lines[2:7]] == ["ok", "ok", "ok", "audited", "ok"]
    assert "client 2 of run small was forgotten by subtract." in lines[7]
    assert lines[8] == "What this does not show:"
    assert lines[9].startswith("- subtract, approximate")


def test_as_json(lethe: Command, small: RunFolder) -> None:
    document = json.loads(lethe("verify", str(small.path / ANSWER / "certificate.json"), "--json").out)
    assert document["valid"]
    assert document["checks"]["update log"] == {"status": "ok", "detail": ""}
    assert document["certificate"]["method"]["name"] == "subtract"


def test_a_purge_is_told(lethe: Command, small: RunFolder) -> None:
    purge(small, ANSWER.name)
    assert "client 2 purged from log, 20" in lethe("verify", str(small.path / ANSWER)).out


def test_one_that_does_not_hold_is_status_1_and_one_line(lethe: Command, small: RunFolder) -> None:
    with (small.path / ANSWER / "model.safetensors").open("ab") as file:
        file.write(b"x")
    ended = lethe("verify", str(small.path / ANSWER))
    assert ended.status == 1
    assert "What this does not show" not in ended.out
    assert ended.err == f"lethe: {small.path / ANSWER}: not verified: model after\n"
    ended = lethe("verify", str(small.path / ANSWER), "--json")
    assert (ended.status, json.loads(ended.out)["valid"]) == (1, False)


def test_what_is_none_is_status_2(lethe: Command, small: RunFolder) -> None:
    ended = lethe("verify", str(small.path / "summary.json"))
    assert (ended.status, ended.out) == (2, "")
    assert "summary.json: this is no certificate" in ended.err


@pytest.mark.parametrize("named", [True, False])
def test_a_certificate_that_lies_elsewhere_needs_the_run_named(
    lethe: Command, small: RunFolder, tmp_path: Path, named: bool
) -> None:
    sent = tmp_path / "sent.json"
    sent.write_bytes((small.path / ANSWER / "certificate.json").read_bytes())
    ended = lethe("verify", str(sent), *(["--run", "small"] if named else []))
    assert ended.status == 0
    assert ("the run's folder is not there" in ended.out) != named


def test_a_whole_run(lethe: Command, small: RunFolder) -> None:
    ended = lethe("verify", "small", "--home", str(small.path.parent))
    assert ended.status == 0
    assert re.search(r"^update log: +ok: 3 rounds, SHA-256 ", ended.out, re.MULTILINE)
    labels = [re.match(r"[^:]+:( +)", line) for line in ended.out.splitlines()]
    assert len({label.end() for label in labels if label}) == 1  # Each status stands in the same column
    assert all(label and len(label[1]) >= 2 for label in labels)
    ended = lethe("verify", str(small.path), "--head", "0" * 64, "--json")
    assert (ended.status, json.loads(ended.out)["valid"]) == (1, False)
    assert ended.err == "lethe: run 'small': not verified: log as noted\n"
