"""benchmarks/reaching.py and benchmarks/stragglers.py on small data."""

from collections.abc import Mapping

import pytest

from app.config.settings import DataSettings
from app.data import load_client_data
from app.workflows.observer import Quiet
from benchmarks.options import chosen
from benchmarks.reaching import RaceOptions, Reached, compared, race, reach
from benchmarks.stragglers import CONTENDERS, DEVICES, Options, losses
from strategies.core.errors import BadInput

KEYS = ("data.clients=2", "data.public=0", "data.train-limit=200", "model.name=mlp", "model.hidden=8")


def of(rounds: int, up: int, down: int, reached: bool = True) -> Reached:
    return Reached(reached, rounds, up, down, 0.0, 97.0)


def test_ratios_by_hand() -> None:
    """Per seed 1000 / 10 and 1000 / 20 up: 75; both ways 2000 / 200 and 2000 / 400: 7.5."""
    found = compared(
        {
            "plain": [of(5, 1000, 1000)] * 2,
            "coded": [of(10, 10, 190), of(20, 20, 380)],
            "lost": [of(9, 1, 1, False)] * 2,
        },
        "plain",
    )
    assert found["coded"]["times-less"]["bytes-up"]["mean"] == pytest.approx(75.0)
    assert found["coded"]["times-less"]["bytes"]["mean"] == pytest.approx(7.5)
    assert found["coded"]["times-less"]["rounds"]["mean"] == pytest.approx(0.375)
    assert "simulated-seconds" not in found["coded"]["times-less"]
    assert "times-less" not in found["lost"]
    assert found["lost"]["reached"] == 0


def test_a_training_ends_at_its_goal() -> None:
    """A goal of 1 % is reached in the first round; one of 101 % never."""
    early = reach([*KEYS, "run.rounds=5"], 1.0)
    assert (early.reached, early.rounds) == (True, 1)
    never = reach([*KEYS, "run.rounds=2"], 101.0)
    assert (never.reached, never.rounds) == (False, 2)
    assert never.bytes_up == 2 * early.bytes_up


def test_contenders_are_named_beside_the_base() -> None:
    """Names may hold commas; one that is not known is refused."""
    known = {"plain": (), "coded, down too": (), "coded": ()}
    assert chosen("codecs", "", known, ";", "plain") == ["plain", "coded, down too", "coded"]
    assert chosen("codecs", "coded, down too", known, ";", "plain") == ["plain", "coded, down too"]
    with pytest.raises(BadInput, match="codecs: got 'zip', allowed some of plain"):
        chosen("codecs", "coded;zip", known, ";", "plain")


def test_a_race_runs_every_contender_with_every_seed() -> None:
    """The model that is sent in int8 takes about a quarter of the bytes up, in as many rounds."""
    common = (*KEYS, "run.rounds=2")
    told = Notes()
    contenders = {"plain": common, "int8": (*common, "compression.codec=int8")}
    found = race(contenders, "plain", RaceOptions(seeds=2, goal=1.0), told, "iid")
    assert told.messages == [f"iid, {name}, seed {seed}" for name in contenders for seed in (0, 1)]
    assert found["int8"]["reached"] == 2
    assert 2.5 < found["int8"]["times-less"]["bytes-up"]["mean"] < 4


class Notes(Quiet):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Remember the message."""
        self.messages.append(message)


def test_stragglers() -> None:
    """Without any, partial work makes no difference; with some it does, and so does mu."""
    settings = DataSettings(name=f"synthetic:1,1,{DEVICES}", partition="devices", clients=DEVICES, public="0")
    devices = [
        load_client_data(settings, 0, {"partition-id": i, "num-partitions": DEVICES}).subset(range(20))
        for i in range(DEVICES)
    ]

    def end(name: str, share: float) -> float:
        return losses(Options(rounds=2, epochs=3), CONTENDERS[name], share, 0, devices)[-1]

    assert end("fedavg", 0.0) == end("fedprox, mu 0", 0.0) != end("fedprox, mu 1", 0.0)
    assert len({end(name, 0.5) for name in CONTENDERS}) == 3
