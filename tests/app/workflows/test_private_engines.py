"""The engine of private training in a whole run: refused before any work, or named in summary and report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.config.run_config import RunConfig
from app.project import LoadedProject, Node, Project, using
from app.report.privacy_view import privacy_view
from app.report.reading import read_run
from app.workflows import train
from benchmarks.inline import InlineGrid
from strategies.core.errors import BadInput


class Normal(nn.Module):
    """A layer norm between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def of_node(node: Node) -> dict[str, tuple[Tensor, Tensor]]:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(node.index))
    y = (x.sum(dim=1) > 0).long()
    return {"train": (x[:30], y[:30]), "test": (x[30:], y[30:])}


@pytest.fixture
def project() -> Iterator[None]:
    found = Project(model=lambda spec: Normal(), data=of_node, classes=("below", "above"))
    with using(LoadedProject(found, "ward.project:project", "", "ab" * 32)):
        yield


def keys(home: Path, engine: str) -> RunConfig:
    return RunConfig().with_overrides(
        [
            *(f"run.home={home}", "run.name=private", "run.rounds=1", "run.workers=1", "data.clients=2"),
            *("privacy.unit=example", "privacy.noise-multiplier=1.0", "privacy.accountant=rdp"),
            *("privacy.delta=1e-3", f"privacy.engine={engine}", "log.enabled=false"),
        ]
    )


@pytest.mark.usefixtures("project")
def test_an_engine_that_the_model_contradicts_leaves_nothing_behind(tmp_path: Path) -> None:
    message = (
        r'privacy\.engine: given "one-pass", but layer \'layers\.1\' \(LayerNorm\) has no rule for one pass; '
        "allowed for this model: auto, ghost, hooks"
    )
    config = keys(tmp_path, "one-pass")
    with pytest.raises(BadInput, match=message):
        train(config, None, InlineGrid(config))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("engine", "words"), [("auto", "one-pass, samplers for LayerNorm"), ("ghost", "ghost")]
)
def test_summary_and_report_say_how_gradients_were_clipped(tmp_path: Path, engine: str, words: str) -> None:
    config = keys(tmp_path, engine)
    folder = train(config, None, InlineGrid(config))
    summary = folder.read_summary()
    assert summary["privacy"]["engine"] == words
    assert summary["faults"] == []
    assert summary["privacy"]["epsilon"] > 0
    view = privacy_view(read_run(folder))
    assert view is not None
    assert f"accountant rdp, clipped by {words}." in view.words
