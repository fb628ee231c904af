"""The folder's manifest names the project; files and overrides stand above its keys."""

import sys
from pathlib import Path

import pytest

from app.project.manifest import Manifest, config_here, with_config_file
from strategies.core.errors import BadInput

MANIFEST = """
[tool.lethe]
project = "ward.project:project"

[tool.flwr.app.config]
run.rounds = 4
train.learning-rate = 0.2
run.config-file = ""
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pyproject.toml").write_text(MANIFEST, encoding="utf-8")
    return tmp_path


def test_a_folder_without_a_manifest_has_the_defaults(tmp_path: Path) -> None:
    assert config_here(tmp_path, None, []).run.project == ""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n", encoding="utf-8")
    assert Manifest.in_folder(tmp_path) is None


def test_the_manifests_project_can_be_imported_and_its_keys_count(folder: Path) -> None:
    config = config_here(folder, None, [])
    assert (config.run.project, config.run.rounds) == ("ward.project:project", 4)
    assert sys.path[0] == str(folder)


def test_later_sources_stand_above_earlier_ones(folder: Path) -> None:
    (folder / "more.toml").write_text(
        "run.rounds = 5\nrun.seed = 5\ntrain.batch-size = 5\n", encoding="utf-8"
    )
    (folder / "given.toml").write_text("run.seed = 6\ntrain.batch-size = 6\n", encoding="utf-8")
    overrides = ["run.config-file=more.toml", "train.batch-size=7"]
    config = config_here(folder, folder / "given.toml", overrides)
    assert (config.run.rounds, config.run.seed, config.train.batch_size) == (5, 6, 7)
    assert config.train.learning_rate == 0.2
    assert config.run.config_file == str(folder / "more.toml")


def test_a_missing_file_and_a_damaged_manifest_are_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.toml: cannot be read"):
        config_here(folder, None, ["run.config-file=nowhere.toml"])
    (folder / "pyproject.toml").write_text('[tool.lethe]\nprojekt = "a:b"\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"\[tool\.lethe\] holds .*, allowed project = "):
        config_here(folder, None, [])
    (folder / "pyproject.toml").write_text("[tool", encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be read as TOML"):
        config_here(folder, None, [])


def test_a_file_that_is_no_config_gives_no_value_away(tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text('password = "hunter2"\n', encoding="utf-8")
    with pytest.raises(BadInput, match="password: unknown key; ") as refused:
        with_config_file({"run.config-file": "secret.toml"}, tmp_path)
    assert "hunter2" not in str(refused.value)
