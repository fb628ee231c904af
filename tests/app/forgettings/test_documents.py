"""What is wrong in a result, an audit or a comparison is named with its file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.forgettings.documents import Comparison
from app.forgettings.folder import read_audit, read_result
from strategies.core.errors import RunCorrupt
from strategies.runs.documents import read_checked
from strategies.runs.files import read_json, write_json
from tests.app.report.run_folders import add_forgetting, new_run
from tests.app.report.test_comparison_tables import comparison

TWO_KINDS = {"kind": "client", "clients": ["1"], "classes": [7], "samples": {}}


def with_value(path: Path, key: str, value: Any) -> None:
    """Replace what stands at a dotted key; None deletes it."""
    document = read_json(path)
    *outer, last = key.split(".")
    found = document
    for name in outer:
        found = found[name]
    if value is None:
        del found[last]
    else:
        found[last] = value
    write_json(path, document)


def refused(read: Callable[[], object], path: Path, key: str) -> None:
    with pytest.raises(RunCorrupt, match=rf"{path.name}: damaged at '{re.escape(key)}"):
        read()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("request", TWO_KINDS),
        ("method", None),
        ("settings", None),
        ("seconds", "fast"),
        ("seconds", -1),
        ("traffic.visits", None),
        ("traffic.bytes-up", "many"),
        ("notes", "none"),
        ("details", {"epsilon": "small"}),
        ("after", "../../other/forget/client-1-distill"),
    ],
)
def test_what_is_wrong_in_a_result_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = add_forgetting(new_run(tmp_path))
    assert read_result(path)["seconds"] == 0.5
    with_value(path / "result.json", key, value)
    refused(lambda: read_result(path), path / "result.json", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("after", None),
        ("disparity", None),
        ("before.test_accuracy", "good"),
        ("retrain.seconds", -0.5),
        ("gaps.test_accuracy", []),
        ("scale.retrain-seed-1.disparity", 101),
        ("notes", [1]),
    ],
)
def test_what_is_wrong_in_an_audit_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = add_forgetting(new_run(tmp_path))
    assert read_audit(path) is not None
    with_value(path / "audit.json", key, value)
    refused(lambda: read_audit(path), path / "audit.json", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", []),
        ("request", TWO_KINDS),
        ("settings.prune", None),
        ("before", None),
        ("methods.slow.test_accuracy.mean", 1e30),
        ("methods.slow.disparity.std", -1),
        ("methods.slow.bytes_up.mean", None),
        ("notes", None),
    ],
)
def test_what_is_wrong_in_a_comparison_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "client-3.json"
    write_json(path, comparison())
    assert read_checked(path, Comparison) == comparison()
    with_value(path, key, value)
    refused(lambda: read_checked(path, Comparison), path, key)
