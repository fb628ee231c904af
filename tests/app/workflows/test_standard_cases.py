"""app/workflows/standard_cases.py: which clients a comparison forgets if nobody says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.config.run_config import RunConfig
from app.workflows import standard_requests
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder


def run(path: Path, overrides: list[str], sizes: dict[str, int]) -> RunFolder:
    """Return what is read of a finished run."""
    (path / "config.toml").write_text(RunConfig().with_overrides(overrides).to_toml(), encoding="utf-8")
    clients: dict[str, Any] = {client_id: {"num-examples": size} for client_id, size in sizes.items()}
    return cast(
        RunFolder,
        SimpleNamespace(path=path, name="study", read_summary=lambda: {"clients": clients}),
    )


ATTACK = ["attack.kind=backdoor", "attack.clients=3"]
SIZES = {"0": 10, "1": 30, "3": 40, "5": 20}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (ATTACK, [("3",), ("1",)]),  # The largest of those that are honest
        ([], [("3",)]),
        ([*ATTACK, "hard.kind=rare", "hard.clients=5"], [("3",), ("5",)]),
        ([*ATTACK, "data.own-classes=0=8"], [("3",), ("0",)]),
        ([*ATTACK, "hard.kind=rare", "hard.clients=5", "data.own-classes=0=8"], [("3",), ("5",)]),
        (["attack.kind=backdoor", "attack.clients=1,3"], [("1", "3"), ("5",)]),
        (["attack.kind=backdoor", "attack.clients=0,1,3"], [("0", "1", "3")]),  # The last one stays
    ],
)
def test_the_attackers_and_an_honest_client(
    tmp_path: Path, overrides: list[str], expected: list[tuple[str, ...]]
) -> None:
    found = standard_requests(run(tmp_path, overrides, SIZES))
    assert [request.clients for request in found] == expected


def test_where_nobody_would_be_left_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no standard case; give --client, --class or --samples"):
        standard_requests(run(tmp_path, [], {"0": 10}))
