"""What ``lethe new`` writes works at once, and a name that could not work is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.project.manifest import Manifest
from app.templates.writing import TEMPLATES, write_project
from strategies.core.errors import BadInput

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "template", ["minimal", *(pytest.param(t, marks=pytest.mark.check) for t in TEMPLATES if t != "minimal")]
)
def test_each_template_is_a_flower_project_whose_own_test_passes(template: str, tmp_path: Path) -> None:
    folder = write_project(f"ward-{template}", template, tmp_path)
    manifest = Manifest.in_folder(folder)
    assert manifest is not None
    assert manifest.reference == f"ward_{template}.project:project"
    RunConfig.from_flat(manifest.values)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, "--rootdir=.", "tests"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_readme_uses_no_key_that_run_config_could_not_change(template: str, tmp_path: Path) -> None:
    folder = write_project("ward", template, tmp_path)
    manifest = Manifest.in_folder(folder)
    assert manifest is not None
    text = (folder / "README.md").read_text(encoding="utf-8")
    given = re.findall(r'--run-config "([^"]*)"', text)
    used = {pair.partition("=")[0] for pairs in given for pair in pairs.split()}
    assert {"run.name", "run.workflow", "run.config-file"} <= used
    assert used <= set(manifest.values)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Ward", "lower-case letters, digits and hyphens"),
        ("-ward", "a letter first"),
        ("../ward", "lower-case letters"),
        ("w" * 33, "1 to 32"),
        ("app", "Python module 'app' already"),
        ("json", "Python module 'json' already"),
        ("class", "Python module 'class' already"),
        ("torch", "Python module 'torch' already"),
    ],
)
def test_a_name_that_could_not_work_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        write_project(name, "tabular", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten_and_an_unknown_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    with pytest.raises(BadInput, match="is there already"):
        write_project("ward", "tabular", tmp_path)
    with pytest.raises(BadInput, match="given 'video', allowed tabular, images, minimal"):
        write_project("room", "video", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ward"]
