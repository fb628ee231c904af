"""The starter as a fork of the user's own process."""

import socket
import sys
from pathlib import Path

import pytest

from app.simulation.launch import Forked


def test_what_waits_to_be_written_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forked process puts another stream in the place of stdout, which writes what the old one holds."""
    file = tmp_path / "out"
    monkeypatch.setattr(sys, "stdout", file.open("w", encoding="utf-8"))
    sys.stdout.write("once")
    ours, theirs = socket.socketpair()
    with theirs:
        process = Forked.start(ours, theirs)
    ours.close()
    process.wait()
    sys.stdout.close()
    assert file.read_text(encoding="utf-8") == "once"
