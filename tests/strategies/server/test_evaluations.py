"""strategies/server/evaluations.py: figures by client and group; nonsense is named."""

import numpy as np
import pytest
import torch
from flwr.app import Array, Message, MetricRecord, RecordDict

from app.simulation.grid import take_identity
from strategies.core import wire
from strategies.figures import Figures, record_of
from strategies.server.evaluations import Evaluations
from strategies.task import CLASSIFICATION
from strategies.tasks.choice import figures_of
from strategies.tasks.regression import Regression
from strategies.tasks.settings import TaskSettings

F1 = figures_of(TaskSettings(metric="f1"), CLASSIFICATION, 2, 2)
OUTPUTS = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
LABELS = torch.tensor([0, 1, 1])


def reply(node: int, figures: Figures, outputs: torch.Tensor, targets: torch.Tensor) -> Message:
    """Return what a client answers, whose numbers are checked already."""
    take_identity()
    score = float(figures.task.scores(outputs, targets).mean())
    numbers = {wire.NUM_EXAMPLES: len(targets), wire.ACCURACY: score, wire.LOSS: 0.5}
    content = RecordDict({wire.METRICS: MetricRecord(numbers)})
    content[wire.SUMS] = record_of(figures.of(outputs, targets))
    return Message(content, dst_node_id=node, message_type="evaluate")


def name_of(message: Message) -> str:
    """Return the client-id of a test's message."""
    return f"c{message.metadata.dst_node_id}"


def collected(figures: Figures, *messages: Message) -> tuple[Evaluations, list[str]]:
    """Return what was noted of some replies, and the complaints."""
    faults: list[str] = []
    pooled = Evaluations(figures, lambda m, reason: faults.append(f"{name_of(m)}: {reason}"), name_of)
    list(pooled.taken(messages))
    return pooled, faults


def test_figures_by_client_by_group_and_over_all_by_hand() -> None:
    """Class 0: one right. Class 1: one of two. Client 1 has the first two, client 2 the third."""
    pooled, faults = collected(
        F1, reply(2, F1, OUTPUTS[2:], LABELS[2:]), reply(1, F1, OUTPUTS[:2], LABELS[:2])
    )
    assert faults == []
    assert pooled.values()["f1"] == pytest.approx(2 / 3)
    document = pooled.to_json({wire.ACCURACY: 200 / 3, wire.LOSS: 0.5})
    assert document is not None
    assert list(document["clients"]) == ["c1", "c2"]
    assert document["clients"]["c1"] == {"examples": 2, "f1": pytest.approx(1 / 3)}
    assert [(row["examples"], row["score"]) for row in document["groups"]] == [(1, 100.0), (2, 50.0)]
    assert document["examples"] == 3
    assert (document["headline"], document["higher-is-better"]) == ("f1", True)
    assert document["figures"]["accuracy"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("what", ["missing", "nan", "shape"])
def test_who_sends_nonsense_is_named_and_left_out(what: str) -> None:
    numbers = figures_of(TaskSettings(), Regression(1.0), 1, 0)
    honest = reply(1, numbers, torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]))
    liar = reply(2, numbers, torch.tensor([[1.0], [2.0]]), torch.tensor([9.0, 9.0]))
    wrong = {"nan": np.array(np.nan), "shape": np.zeros(7)}
    if what == "missing":
        del liar.content[wire.SUMS]
    else:
        liar.content.array_records[wire.SUMS]["r2/residual"] = Array(wrong[what])
    pooled, faults = collected(numbers, liar, honest)
    assert len(faults) == 1
    assert faults[0].startswith("c2: reports ")
    assert pooled.values() == pytest.approx({"r2": 0.5, "rmse": 0.5**0.5, "mae": 0.5})
    assert list((pooled.to_json({}) or {})["clients"]) == ["c1"]


def test_nobody_answers() -> None:
    pooled, _ = collected(F1)
    assert pooled.values() == {}
    assert pooled.to_json({}) is None
