"""benchmarks/gossip.py, coding.py and personalisation.py, small: configs parse, figures fit theory."""

import pytest

from app.config.run_config import RunConfig
from benchmarks import coding, gossip, personalisation


@pytest.mark.parametrize("topology", gossip.TOPOLOGIES)
def test_mixing_falls_as_theory_has_it(topology: str) -> None:
    distances, eigenvalue = gossip.mixing(gossip.TOPOLOGIES[topology], 9, 0)
    assert gossip.factor(distances) <= eigenvalue + 1e-3
    assert distances[1] <= (eigenvalue + 1e-6) * distances[0]


def test_the_factor_by_hand() -> None:
    """Halved three times, then below what float32 can tell."""
    assert gossip.factor([8.0, 4.0, 2.0, 1.0, 1e-6]) == pytest.approx(0.5)
    assert gossip.factor([1.0, 1e-9]) == 0.0


def test_every_contender_is_a_config() -> None:
    for own in (*personalisation.OWN.values(), *personalisation.GLOBAL.values()):
        RunConfig().with_overrides([*personalisation._RUN, *own])
    RunConfig().with_overrides(coding._ignoring(coding._RUN))


def test_personalised_figures_of_a_small_federation() -> None:
    """Two rounds over four clients: training locally alone beats the common model where classes differ."""
    keys = [*personalisation._RUN, "data.name=digits", "data.clients=4", "run.rounds=2", "model.hidden=16"]
    table = personalisation._one(keys, 0.1)
    assert len(table) == 3 + 3 * 3
    assert table["local alone"]["mean"] > table["fedavg"]["mean"]
    assert all(0 <= row["worst"] <= row["mean"] <= 100 for row in table.values())
