"""A user's file with the name of one of Lethe's packages is noticed, in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.project.manifest import config_here
from strategies.core.errors import BadInput
from strategies.core.ours import NAMES, check_ours, hidden_in

ROOT = Path(__file__).parents[3]
COMMAND = "import sys; from strategies.core.ours import command; sys.argv[1:] = ['--help']; command()"


def ended(folder: Path, code: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run code as in a user's folder, which Python looks into first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_import_lethe_names_the_file_that_hides_ours(name: str, form: str, tmp_path: Path) -> None:
    file = tmp_path / form.format(name)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    done = ended(tmp_path, "import lethe")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"{name!r}" in last
    assert "rename it, or start in another folder" in last
    assert name == "strategies" or str(file) in last


@pytest.mark.parametrize("name", ["app", "unlearning"])
def test_the_command_says_so_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").touch()
    done = ended(tmp_path, COMMAND)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"lethe: {tmp_path / name}.py hides Lethe's package")


def test_a_folder_without_such_a_file_is_fine(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()  # No package: Lethe's is found all the same
    done = ended(tmp_path, COMMAND)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: lethe" in done.stdout
    check_ours()
    assert hidden_in(ROOT) is None
    assert hidden_in(tmp_path) is None


def test_a_module_that_is_imported_already_counts(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import app; del sys.path[0]; import lethe"
    done = ended(ROOT, code)
    assert f"{tmp_path / 'app.py'} hides Lethe's package" in done.stderr.splitlines()[-1]


def test_a_project_whose_folder_would_hide_ours_from_the_clients(tmp_path: Path) -> None:
    """Their processes look into the project's folder first."""
    (tmp_path / "pyproject.toml").write_text('[tool.lethe]\nproject = "own.project:project"\n')
    (tmp_path / "app.py").touch()
    with pytest.raises(BadInput, match=r"app\.py hides Lethe's package"):
        config_here(tmp_path, None, [])
    assert str(tmp_path) not in sys.path
