"""benchmarks/deployed/parts.py: what the notes of a round say, and that its parts add up to it."""

import json
import logging
import subprocess
from pathlib import Path

import pytest

from benchmarks import BENCHMARKS
from benchmarks.deployed import stamped
from benchmarks.deployed.parts import PARTS, Stamp, medians, put_ahead, read, rounds
from benchmarks.deployed.rounds import figures, table
from strategies.core.errors import BadInput, LetheError

LAST = (10.0, 10.5, 12.0, 12.25, 13.0, 15.0, 15.5, 15.75, 17.0, 17.5, 18.0, 18.5, 19.0, 20.0)
"""When the message that ends the second round came by each of `stamped.EVENTS`."""


def way(message: str, times: tuple[float, ...]) -> list[Stamp]:
    """Return the notes of a message."""
    found = [Stamp(event, message, at) for event, at in zip(stamped.EVENTS, times, strict=True)]
    return [Stamp("push", message, times[0], "train"), *found[1:]]


def flat(message: str, begin: float, end: float) -> list[Stamp]:
    """Return the notes of a message that is handled at once and fetched at `end`."""
    return way(message, (*(begin,) * (len(stamped.EVENTS) - 1), end))


def test_the_parts_of_a_round_are_those_of_its_last_message_and_add_up() -> None:
    """The first round's replies are in at 8, the second's at 20; message b is answered at 14 already.

    From 8 to 10 the server works, pushing takes 0.5, the SuperNode polls 1.5, and so on: 12 seconds in all.
    """
    stamps = [*way("c", LAST), *flat("b", 10.0, 14.0), *flat("a", 1.0, 8.0)]
    (found,) = rounds(stamps)
    assert found == {
        "server": 2.0,
        "push": 0.5,
        "supernode-polls": 1.5,
        "transfer-down": 0.25,
        "executor-polls": 0.75,
        "process-start": 2.0,
        "task-input": 0.5,
        "bundle": 0.25,
        "imports": 1.25,
        "work": 0.5,
        "hand-over": 0.5,
        "supernode-looks": 0.5,
        "transfer-up": 0.5,
        "server-polls": 1.0,
    }
    assert sum(found.values()) == 20.0 - 8.0


def test_of_replies_that_are_fetched_at_once_the_one_sent_last_counts() -> None:
    early = way("b", (*LAST[:-2], 18.75, 20.0))
    (found,) = rounds([*early, *way("c", LAST), *flat("a", 1.0, 8.0)])
    assert found["transfer-up"] == 0.5


def test_notes_that_cross_make_no_negative_part() -> None:
    """The reply is fetched at 20, its sender knows at 21 that it was sent; no second is counted twice."""
    (found,) = rounds([*way("c", (*LAST[:-2], 21.0, 20.0)), *flat("a", 1.0, 8.0)])
    assert (found["transfer-up"], found["server-polls"]) == (1.5, 0.0)
    assert sum(found.values()) == 12.0


def test_other_messages_than_those_of_training_are_no_rounds() -> None:
    asked = [Stamp("push", "d", 9.0, "query.describe"), Stamp("fetched", "d", 9.5)]
    assert len(rounds([*asked, *way("c", LAST), *flat("a", 1.0, 8.0)])) == 1


def test_a_missing_note_is_named() -> None:
    stamps = [each for each in way("c", LAST) if each.event != "loaded"]
    with pytest.raises(LetheError, match="message c: nothing tells when it was loaded"):
        rounds([*stamps, *flat("a", 1.0, 8.0)])


def test_figures_stand_beside_each_other() -> None:
    stamps = [*flat("a", 1.0, 8.0), *way("c", LAST), *flat("d", 21.0, 36.0)]
    found = figures([3.0, 12.0, 16.0], stamps)
    assert found["parts"] == medians(rounds(stamps))
    assert (found["median"], found["sum"]) == (14.0, sum(found["parts"].values()))
    rows = table({"flower": found})
    assert [row["part"] for row in rows] == [*PARTS, "sum", "measured round"]
    assert rows[0] == {"part": "server", "flower": 1.5}
    assert rows[-1] == {"part": "measured round", "flower": 14.0}


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(BadInput, match="rounds: given 1, allowed at least 2"):
        BENCHMARKS["deployed"](rounds=1)


def test_a_program_ahead_takes_notes_and_is_the_program(tmp_path: Path) -> None:
    environment = put_ahead(tmp_path)
    program = tmp_path / "programs" / "flower-supernode"
    done = subprocess.run(
        [program, "--help"], env=environment, capture_output=True, text=True, check=True, timeout=900
    )
    assert "--isolation" in done.stdout


def test_a_supernode_s_log_tells_of_its_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply has an id of its own; the notes are of the message that it answers."""
    monkeypatch.setenv(stamped.STAMPS, str(tmp_path / "stamps.jsonl"))
    log = logging.Logger("supernode")
    log.addHandler(stamped.SuperNodeLog())
    log.info("Receiving: %s message (ID: %s)", "train", "a")
    log.info("Received successfully")
    log.info("another line")
    log.info("Sending: %s message (ID: %s)", "train", "reply")
    log.info("Sent successfully")
    found = read(tmp_path)
    assert [(each.event, each.message) for each in found] == [
        (event, "a") for event in ("receiving", "received", "sending", "sent")
    ]
    assert json.loads((tmp_path / "stamps.jsonl").read_text().splitlines()[0])["at"] == found[0].at
