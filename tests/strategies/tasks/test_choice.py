"""strategies/tasks/choice.py: which task, which figures, and what is refused."""

import re

import pytest

from strategies.core.errors import BadInput
from strategies.task import CLASSIFICATION
from strategies.tasks.choice import figures_of, scaled, task_of
from strategies.tasks.multi_label import MultiLabel
from strategies.tasks.regression import Regression
from strategies.tasks.segmentation import Segmentation
from strategies.tasks.settings import TaskSettings
from strategies.tasks.weighted import WeightedClassification
from tests.strategies.other_tasks import Regression as Own


def test_the_config_chooses_and_neutral_settings_are_plain_classification() -> None:
    assert task_of(TaskSettings()) is CLASSIFICATION
    assert isinstance(task_of(TaskSettings(class_weights="1=2")), WeightedClassification)
    assert isinstance(task_of(TaskSettings(label_smoothing=0.1)), WeightedClassification)
    kinds = {"multi-label": MultiLabel, "regression": Regression, "segmentation": Segmentation}
    for name, kind in kinds.items():
        assert isinstance(task_of(TaskSettings.model_validate({"name": name})), kind)
        assert isinstance(task_of(TaskSettings(), name), kind)


def test_a_project_brings_its_own() -> None:
    own = Own()
    assert task_of(TaskSettings(), own) is own


@pytest.mark.parametrize(
    ("given", "own", "message"),
    [
        ({"name": "regression"}, Own(), 'task.name: given "regression", but the project brings a task'),
        ({"name": "regression"}, "segmentation", 'task.name: given "regression", but the project\'s is'),
        ({}, "clustering", 'the project\'s task: given "clustering", allowed a Task, or classification, '),
        (
            {"name": "regression", "class_weights": "1=2"},
            None,
            'task.class-weights: given "1=2", which has an effect only on classification, and the task',
        ),
        ({"ignore": 3}, None, "task.ignore: given 3, which has an effect only on segmentation"),
    ],
)
def test_a_contradiction_is_refused(given: dict[str, object], own: object, message: str) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(message)}"):
        task_of(TaskSettings.model_validate(given), own)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["1", "a=2", "1=0", "1=-1", "1=2, 1=3", "1=inf"])
def test_class_weights_are_pairs_of_label_and_weight(weights: str) -> None:
    with pytest.raises(ValueError, match="label=weight"):
        TaskSettings(class_weights=weights)


def test_the_scale_is_taken_where_none_is_given() -> None:
    without, own = scaled(Regression(), 3.0), scaled(Regression(2.0), 3.0)
    assert isinstance(without, Regression)
    assert without.scale == 3.0
    assert isinstance(own, Regression)
    assert own.scale == 2.0
    assert scaled(CLASSIFICATION, 3.0) is CLASSIFICATION


def test_plain_classification_computes_nothing_further_unless_asked() -> None:
    assert figures_of(TaskSettings(), CLASSIFICATION, 3, 3).names == ()
    assert figures_of(TaskSettings(metric="f1"), CLASSIFICATION, 3, 3).names == ("f1", "auroc", "confusion")
    assert figures_of(TaskSettings(metric="f1", metrics="none"), CLASSIFICATION, 3, 3).names == ("f1",)
    assert figures_of(TaskSettings(metrics="auroc"), CLASSIFICATION, 3, 3).names == ("auroc",)
    assert figures_of(TaskSettings(metrics="all"), CLASSIFICATION, 3, 3).headline == "accuracy"
    assert figures_of(TaskSettings(), MultiLabel(), 3, 3).headline == "f1"


def test_figures_know_which_way_is_better() -> None:
    settings = TaskSettings(metric="rmse")
    assert not figures_of(settings, Regression(), 1, 0).higher_is_better
    assert figures_of(TaskSettings(), Regression(), 1, 0).higher_is_better
    assert figures_of(TaskSettings(), CLASSIFICATION, 2, 2).higher_is_better


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"metric": "f2"},
            'task.metric: given "f2", the task (classification) has accuracy, f1, auroc, conf',
        ),
        ({"metrics": "f1, mae"}, 'task.metrics: given "mae", the task (classification) has accuracy, f1,'),
        ({"metric": "confusion"}, 'task.metric: given "confusion", which is a table; allowed a metric that'),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(message)}"):
        figures_of(TaskSettings.model_validate(given), CLASSIFICATION, 3, 3)
