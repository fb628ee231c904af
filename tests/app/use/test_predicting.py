"""Predictions are those of the run's model on inputs as its training made them; rows as people read them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.data import as_examples
from app.data.record import INPUTS, columns_of, recorded_inputs
from app.data.unlabelled import read_inputs
from app.use import Subject, open_subject, rows_of
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from strategies.client.evaluation import outputs_of
from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs.folder import RunFolder
from tests.app.test_tasks import (
    labels,
    masks,
    module as module,  # noqa: PLC0414  # a fixture
    numbers,
    trained,
)
from tests.app.use.conftest import table


def rows(subject: Subject, thing: object) -> list[dict[str, Any]]:
    return list(rows_of(subject, read_inputs(thing, subject.wanted)))


def test_a_table_is_encoded_and_scaled_as_in_training_although_its_file_is_gone(on_table: RunFolder) -> None:
    """By hand: columns by the schema, minus the mean, by the deviation, through the model, softmax."""
    new = table(7)
    subject = open_subject(on_table)
    columns, record = columns_of(on_table), recorded_inputs(on_table)
    assert columns is not None
    assert record is not None
    mean, deviation = np.array(record.scale).reshape(2, -1)
    assert mean[0] > 5000 > deviation[0] > 100
    x = torch.tensor((columns.apply(new).double().numpy() - mean) / deviation).float()
    with torch.no_grad():
        wanted = subject.model(x).double().softmax(dim=1)
    found = rows(subject, new.drop(columns="ill"))
    assert [row["p(yes)"] for row in found] == pytest.approx(wanted[:, 1].tolist(), rel=1e-5)
    right = np.mean([row["prediction"] for row in found] == new["ill"])
    assert right > 0.7  # A coin would give 0.5
    likely = [max(row["p(no)"], row["p(yes)"]) for row in found]
    assert [row["probability"] for row in found] == likely
    assert [row["row"] for row in found] == list(range(90))


def test_digits_are_predicted_as_the_run_was_evaluated(small: RunFolder) -> None:
    session = open_session(small)
    run, test = open_trained_run(small, session), session.server_data.test
    assert test is not None
    wanted = outputs_of(run.model(run.final), test).argmax(dim=1)
    found = rows(open_subject(small), test)
    assert [int(row["prediction"]) for row in found] == wanted.tolist()
    right = 100 * float((wanted == test.targets()).float().mean())
    assert right == pytest.approx(small.read_summary()["final"]["test-accuracy"])


def test_the_model_after_a_forgetting_is_another(small: RunFolder) -> None:
    before, after = open_subject(small), open_subject(small, "client-2-subtract")
    assert before.sha256 != after.sha256
    assert before.notes == [
        "this is the model from before the forgetting client-2-subtract; the one after it is "
        "small/forget/client-2-subtract"
    ]
    assert after.notes == []
    x = torch.rand(5, 1, 8, 8)
    assert rows(before, x) != rows(after, x)
    with pytest.raises(BadInput, match="no forgetting 'client-9'; known: client-2-subtract"):
        open_subject(small, "client-9")


def test_a_run_of_before_inputs_were_recorded_is_used_as_well(small: RunFolder) -> None:
    x = torch.rand(5, 1, 8, 8)
    wanted = rows(open_subject(small), x)
    (small.path / INPUTS).write_text('{"parts": {"": {"shape": [1, "8"]}}, "scale": []}')
    with pytest.raises(RunCorrupt, match="expected a shape and a type"):
        open_subject(small)
    (small.path / INPUTS).unlink()
    assert rows(open_subject(small), x) == wanted


@pytest.mark.parametrize("project", ["numbers", "labels", "masks", "own"])
def test_other_tasks(project: str, module: str, tmp_path: Path) -> None:
    subject = open_subject(trained(tmp_path, f"{module}:{project}"))
    data: Any = {"numbers": numbers, "labels": labels, "masks": masks, "own": numbers}[project]()
    x = data[0][:3]
    found = rows(subject, x)
    with torch.no_grad():
        outputs = subject.model(x)
    if project in {"numbers", "own"}:
        wanted = outputs.flatten().tolist()
        assert [row["prediction"] for row in found] == pytest.approx(wanted, rel=1e-5)
    elif project == "labels":
        wanted = [[str(k) for k in range(3) if outputs[i, k] > 0] for i in range(3)]
        assert [row["prediction"] for row in found] == wanted
        assert [row["p(2)"] for row in found] == pytest.approx(outputs[:, 2].sigmoid().tolist(), rel=1e-5)
    else:
        assert [row["prediction"] for row in found] == outputs.argmax(dim=1).tolist()
        assert all(set(row) == {"row", "prediction"} for row in found)


def test_what_the_model_does_not_take_is_one_line(small: RunFolder) -> None:
    """A set of examples is taken as it is, and so the model is the one to refuse it."""
    other = as_examples((torch.rand(2, 5), torch.zeros(2).long()))
    with pytest.raises(BadInput, match=r"the model does not take inputs of shape \(5,\)"):
        rows(open_subject(small), other)
