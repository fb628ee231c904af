"""app/project/keys.py: a data key without effect beside a project is refused, and what to use instead."""

from typing import Any

import numpy as np
import pytest
import torch

from app.config.run_config import RunConfig
from app.project import Project
from app.project.keys import check_data_keys
from strategies.core.errors import BadInput

PAIR = (torch.zeros(9, 2), torch.zeros(9).long())
TOGETHER = Project(data=PAIR)
BY_NODE = Project(data=lambda node: PAIR)


def checked(project: Project, **keys: Any) -> None:
    values = {f"data.{key.replace('_', '-')}": value for key, value in keys.items()}
    check_data_keys(RunConfig.from_flat({"data.clients": 3, **values}), project, "classes")


@pytest.mark.parametrize(
    ("project", "keys", "said"),
    [
        (TOGETHER, {"target": "ill"}, r"leave it out; name it by lethe\.Project\(target=\)$"),
        (TOGETHER, {"classes": "a, b"}, r"leave it out; name them by lethe\.Project\(classes=\)$"),
        (TOGETHER, {"root": "/data"}, "the project brings the data; leave it out$"),
        (TOGETHER, {"per_class": 3}, "the project brings the data; leave it out; data or"),
        (
            TOGETHER,
            {"public": "mnist", "root": ""},
            r"but a share of them, or lethe\.Project\(public=\), holds in its",
        ),
        (
            BY_NODE,
            {"partition": "shards"},
            r"whose data\(node\) .* does not read; it is read by data that are spread",
        ),
        (BY_NODE, {"train_limit": 5}, "does not read"),
        (BY_NODE, {"public": "0.3"}, "does not read"),
        (
            Project(data=PAIR, test=PAIR),
            {"test_share": 0.3},
            r"but lethe\.Project\(test=\) holds in its place",
        ),
        (
            Project(data=PAIR, public=PAIR),
            {"public": "0.3"},
            r"but lethe\.Project\(public=\) holds in its place",
        ),
        (Project(test=PAIR), {"test_share": 0.3}, r"but lethe\.Project\(test=\) holds in its place"),
        (
            Project(data=PAIR, partition=lambda y, n, g: np.array_split(np.arange(9), n)),
            {"partition": "dirichlet"},
            r"but lethe\.Project\(partition=\) holds in its place",
        ),
        (Project(), {"target": "ill"}, 'which data.name = "digits" does not read'),
    ],
)
def test_keys_without_effect(project: Project, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=rf"^data\.{next(iter(keys)).replace('_', '-')}: given .*{said}"):
        checked(project, **keys)


def test_keys_with_an_effect_and_those_that_ask_for_nothing() -> None:
    checked(TOGETHER, partition="dirichlet", alpha=0.1, train_limit=5, public="0.3", test_share=0.3, size=8)
    checked(BY_NODE, public="0", test_share=0.0, local_test_share=0.2, columns="schema.json", size=8)
    checked(Project(), name="csv:a.csv", target="ill", per_class=3)
