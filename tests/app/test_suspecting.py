"""lethe suspects from end to end: the ranking, its file, and what is refused."""

import json
import re

import pytest
from rich.cells import cell_len

from app.config.run_config import RunConfig
from app.forgettings.names import SUSPECTS
from app.report.page import write_report
from app.workflows.suspecting import suspects
from app.workflows.traces import erase_traces
from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import CONFIG, MODEL, RunFolder
from tests.app.cli.conftest import Command, lethe

__all__ = ["lethe"]


def test_a_run_is_ranked_from_its_log_and_left_as_it_is(small: RunFolder, lethe: Command) -> None:
    before = (small.path / MODEL).read_bytes()
    ended = lethe("suspects", str(small.path), "--json", home=False)
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    kept = read_json(small.path / SUSPECTS)
    assert {
        **told,
        "clients": [{k: v for k, v in c.items() if k != "command"} for c in told["clients"]],
    } == kept
    assert sorted(each["client"] for each in told["clients"]) == ["0", "1", "2"]
    assert [each["rank"] for each in told["clients"]] == [1, 2, 3]
    scores = [each["score"] for each in told["clients"]]
    assert scores == sorted(scores, reverse=True)
    assert set(told["clients"][0]["signs"]) == {"direction", "length", "loss", "class"}
    first = told["clients"][0]
    assert first["command"] == f"lethe forget {small.path} --client {first['client']} --method fast-distill"
    assert told["standing-out"] == []
    assert (small.path / MODEL).read_bytes() == before


def test_the_table_fits_a_terminal_and_nobody_is_named_without_evidence(
    small: RunFolder, lethe: Command
) -> None:
    out = lethe("suspects", str(small.path), home=False).out.splitlines()
    assert out[0].split() == ["client", "score", "95", "%", "p", "direction", "length", "loss", "class"]
    assert max(cell_len(line.rstrip()) for line in out[:4]) <= 80
    assert out[4].startswith("Nobody stands out: ")
    assert "note: of 3 clients none can be told from the others; that takes 4" in out
    assert not any("lethe forget" in line for line in out)


def test_the_report_has_a_section_if_the_run_was_asked(small: RunFolder) -> None:
    assert 'id="suspects"' not in write_report(small).read_text()
    document = suspects(small)
    assert "Nobody stands out" in write_report(small).read_text()
    worst = document["clients"][0]
    worst |= {"p": 0.0004, "stands-out": True, "reasons": ["its updates are longer than the others'"]}
    write_json(small.path / SUSPECTS, {**document, "standing-out": [worst["client"]]})
    page = write_report(small).read_text()
    assert f"Client {worst['client']} stands out (p = 0.0004): its updates are longer than" in page
    assert f"lethe forget small --client {worst['client']}" in page
    write_json(small.path / SUSPECTS, {**document, "level": 2})
    with pytest.raises(RunCorrupt, match=r"suspects.json: damaged at 'level'"):
        write_report(small)


def test_a_purge_takes_the_ranking_with_it(small: RunFolder) -> None:
    suspects(small)
    erase_traces(small, ["2"])
    assert not (small.path / SUSPECTS).exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["strategy.name=fedmd"], 'strategy.name: given "fedmd", but suspects compares updates of one model'),
        (
            ["strategy.name=gossip"],
            'strategy.name: given "gossip", but suspects compares updates whose average',
        ),
        (
            ["privacy.secure-aggregation=true", "log.enabled=false", "data.clients=4"],
            "privacy.secure-aggregation: given true, so the server saw masked sums only",
        ),
        (
            ["privacy.encryption=ckks", "log.enabled=false"],
            'privacy.encryption: given "ckks", so the server saw an encrypted sum only',
        ),
        (["train.isolation=2"], "train.isolation: given 2, but suspects compares updates of one model for"),
        (
            ["log.enabled=false"],
            "suspects needs the update log, but the run was trained with log.enabled = f",
        ),
    ],
)
def test_who_sent_no_update_that_was_seen_is_not_judged(
    small: RunFolder, keys: list[str], message: str
) -> None:
    (small.path / CONFIG).write_text(RunConfig().with_overrides(keys).to_toml())
    with pytest.raises(BadInput, match=re.escape(message)):
        suspects(small)
    assert not (small.path / SUSPECTS).exists()


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, float("nan")])
def test_a_level_that_is_none_is_refused(small: RunFolder, level: float) -> None:
    with pytest.raises(BadInput, match=rf"level: given {level:g}, allowed a number > 0 and < 1"):
        suspects(small, level)
