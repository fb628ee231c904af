"""app/config/staged.py: who is staged, and what contradicts itself."""

import pytest

from app.config.run_config import RunConfig
from app.config.staged import HardSettings
from strategies.core.errors import BadInput


def test_hard_clients_parse_and_are_none_without_a_kind() -> None:
    assert HardSettings(kind="rare", clients="3, ward").client_ids == ("3", "ward")
    assert HardSettings.model_validate({"kind": "rare", "clients": 3}).client_ids == ("3",)
    assert HardSettings(clients="3").client_ids == ()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["hard.kind=rare"], 'hard.clients: given "", must name at least one with hard.kind = "rare"'),
        (["hard.clients=5"], "hard.clients"),
        (["hard.kind=wrong", "hard.clients=5"], "hard.kind"),
        (
            ["hard.kind=rare", "hard.clients=3,5", "attack.kind=backdoor", "attack.clients=5"],
            'hard.clients: given "3,5", but attack.clients names 5 too; an honest client does not attack',
        ),
        (["data.own-classes=5"], "data.own-classes: .*such as 5=8"),
        (["data.own-classes=5=8+8"], "data.own-classes: .*each label once"),
    ],
)
def test_contradictions_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        RunConfig().with_overrides(overrides)
