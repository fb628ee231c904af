"""``lethe config``: keys listed, explained and checked."""

import json
from pathlib import Path

from app.config.run_config import RunConfig
from tests.app.cli.conftest import Command


def test_all_keys_are_listed(lethe: Command) -> None:
    out = lethe("config", home=False).out
    assert all(key in out for key in RunConfig().to_flat())
    listed = json.loads(lethe("config", "--json", home=False).out)["keys"]
    defaults = {entry["key"]: entry["default"] for entry in listed}
    assert RunConfig().to_flat().items() <= defaults.items()
    assert defaults["forget.distill.temperature"] == 3.0


def test_a_key_is_explained(lethe: Command) -> None:
    out = lethe("config", "explain", "strategy.edge-probability", home=False).out
    assert out.startswith("strategy.edge-probability = 0.5\nallowed: a number > 0 and <= 1\n")
    assert 'only with strategy.name = "gossip"\n' in out
    assert 'only with strategy.topology = "random"\n' in out


def test_a_key_that_is_none(lethe: Command) -> None:
    done = lethe("config", "explain", "run.rouns", home=False)
    assert (done.status, done.err) == (
        2,
        "lethe: run.rouns: unknown key; did you mean 'run.rounds'?\n",
    )


def test_a_file_is_checked(lethe: Command, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[run]\nrounds = 3\n[data]\nclients = 4\n", encoding="utf-8")
    out = lethe("config", "check", str(path), home=False).out
    assert out.splitlines()[1:] == ["run.rounds = 3", "data.clients = 4"]
    path.write_text("run.rounds = 0\n", encoding="utf-8")
    done = lethe("config", "check", str(path), home=False)
    assert (done.status, done.err) == (2, "lethe: run.rounds: given 0, allowed an integer >= 1\n")
