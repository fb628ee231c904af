"""lethe diagnose from end to end: before training, after, and what is refused."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from app.config.run_config import RunConfig
from app.report.svg import WIDTHS
from app.workflows.diagnosing import diagnose
from app.workflows.session import DEFAULT_CLIENTS, Session
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder

SMALL = (
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=240",
    "data.test-limit=50",
    "model.name=mlp",
    "model.hidden=8",
)


def values(*overrides: str) -> dict[str, float]:
    found = diagnose(RunConfig().with_overrides([*SMALL, *overrides]))
    assert found.faults == []
    return {f.name: float(f.value or 0) for f in found.findings}


def test_shards_differ_more_than_iid_clients_in_everything_but_size() -> None:
    """The strategy of the run to be does not matter: plain training is what is diagnosed."""
    iid = values("selection.speeds=equal")
    shards = values("data.partition=shards", "strategy.name=gossip")
    for name in ("label divergence", "gradient dissimilarity", "client drift"):
        assert shards[name] > 1.5 * iid[name]
    assert iid["speed imbalance"] == pytest.approx(1.0, abs=0.05)
    assert iid["gradient dissimilarity"] >= 1


def test_without_a_number_of_clients_there_are_as_many_as_in_training() -> None:
    plain = [key for key in SMALL if not key.startswith("data.clients")]
    config = RunConfig().with_overrides([*plain, "data.partition=dirichlet", "data.alpha=1"])
    found = diagnose(config)
    assert found.faults == []
    assert set(found.findings[0].clients) == set(map(str, range(DEFAULT_CLIENTS)))


def test_a_run_is_diagnosed_at_the_model_it_ended_with(small: RunFolder) -> None:
    result = CliRunner().invoke(app, ["diagnose", str(small.path), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told["figures"]) == {
        "label divergence",
        "gradient dissimilarity",
        "client drift",
        "size imbalance",
        "speed imbalance",
    }
    assert set(told["figures"]["client drift"]["clients"]) == {"0", "1", "2"}
    page = Path(told["page"])
    assert page == small.path / "diagnosis.html"
    text = unescape(page.read_text())
    assert all(figure["advice"] in text for figure in told["figures"].values())
    assert [text.count(f'<svg class="chart {form}"') for form in WIDTHS] == [4, 4, 4]
    assert "In bits, from 0 to 1, mean over the clients; above 0.1 noticeable, above 0.4 high." in text
    assert "examples, 3 times the median." in text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["strategy.name=fedmd"], 'strategy.name: given "fedmd", but diagnose compares clients on one model'),
        (
            ["privacy.unit=example", "privacy.epsilon=5"],
            'privacy.unit: given "example", but diagnose has clients send gradients without noise',
        ),
        (
            ["privacy.encryption=ckks", "log.enabled=false"],
            'privacy.encryption: given "ckks", but diagnose has clients send gradients in the clear',
        ),
    ],
)
def test_what_has_no_common_model_or_is_private_is_refused(keys: list[str], message: str) -> None:
    plain = [key for key in SMALL if not key.startswith("model.")]
    with pytest.raises(BadInput, match=re.escape(message)):
        diagnose(RunConfig().with_overrides([*plain, *keys]))


def test_clients_that_are_elsewhere_are_not_made_up() -> None:
    """The config of a run in a deployment has no number of clients: they have data of their own."""
    with pytest.raises(
        BadInput, match=re.escape("data.clients: 0, so the run's clients are those of a depl")
    ):
        Session.load(RunConfig()).local_grid()
