"""A project is found by its reference, with the user's own traceback where its import fails."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from app.config.run_config import RunConfig
from app.project import Project, bind, bound, loaded_from, project_of, using
from app.project.loading import IN_PYTHON, explained, folder_now, named
from strategies.core.errors import BadInput
from strategies.runs.tensor_file import write_sealed

SOURCE = """
from torch import nn
from app.project import Project

project = Project(model=nn.Linear(2, 2))
number = 3
"""
Package = Callable[[str, str], Path]


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Package]:
    """Return a function that writes a package's ``project.py``; no project is in use afterwards."""

    def write(name: str, source: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("", encoding="utf-8")
        (folder / "project.py").write_text(source, encoding="utf-8")
        return tmp_path

    with using(None):
        yield write


def test_a_reference_leads_to_the_project_and_the_folder_that_holds_it(package: Package) -> None:
    folder = package("found_one", SOURCE)
    loaded = loaded_from("found_one.project:project", str(folder))
    assert isinstance(loaded.project.model, nn.Linear)
    assert loaded.folder == str(folder)
    assert not loaded.in_python


def test_the_hash_is_of_all_the_packages_sources_but_its_tests(package: Package) -> None:
    folder = package("found_two", SOURCE)
    before = loaded_from("found_two.project:project", str(folder)).sha256
    (folder / "found_two" / "test_it.py").write_text("x = 1", encoding="utf-8")
    assert loaded_from("found_two.project:project").sha256 == before
    (folder / "found_two" / "layers.py").write_text("x = 1", encoding="utf-8")
    assert loaded_from("found_two.project:project").sha256 != before


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("project", "allowed module:object"),
        ("nowhere_at_all.project:project", "no module 'nowhere_at_all.project' here"),
        ("json:dumps", "names a function, wanted a lethe.Project"),
        ("json:nothing_like_it", "names nothing"),
        (IN_PYTHON, "handed over in Python"),
    ],
)
def test_what_is_no_project_is_refused(reference: str, message: str) -> None:
    with using(None), pytest.raises(BadInput, match=message):
        loaded_from(reference)


def test_a_failing_import_shows_the_users_traceback_and_not_ours(package: Package) -> None:
    folder = package("found_bad", "import math\n\nrate = 1 / 0\n")
    with pytest.raises(BadInput, match=r"importing 'found_bad.project' failed: ZeroDivisionError") as failed:
        loaded_from("found_bad.project:project", str(folder))
    (trace,) = failed.value.__notes__
    assert 'found_bad/project.py", line 3' in trace
    assert "loading.py" not in trace
    assert "importlib" not in trace
    assert str(folder) not in sys.path


def test_a_missing_import_of_the_users_is_not_taken_for_a_missing_project(package: Package) -> None:
    folder = package("found_half", "import no_such_library\n")
    with pytest.raises(BadInput, match=r"ModuleNotFoundError: No module named 'no_such_library'"):
        loaded_from("found_half.project:project", str(folder))


def test_the_bound_project_is_that_of_a_config_that_names_none_or_the_same(package: Package) -> None:
    folder = package("found_three", SOURCE)
    loaded = loaded_from("found_three.project:project", str(folder))
    other = RunConfig.from_flat({"run.project": "found_three.project:project"})
    assert project_of(RunConfig()) is None
    bind(loaded)
    assert project_of(RunConfig()) is loaded
    assert project_of(other) is loaded
    with using(None):
        assert bound() is None
    assert bound() is loaded


def test_a_project_that_no_module_holds_is_one_of_python() -> None:
    def model(spec: object) -> nn.Module:
        return nn.Linear(2, 2)

    assert named(Project(model=model)).reference == IN_PYTHON


def test_a_project_is_named_by_the_module_that_wrote_it_not_by_one_that_imports_it(package: Package) -> None:
    folder = package(
        "found_four",
        "from torch import nn\nfrom app.project import Project\n"
        "def model(spec):\n    return nn.Linear(2, 2)\nproject = Project(model=model)\n",
    )
    (folder / "found_four" / "also.py").write_text(
        "from found_four.project import project\n", encoding="utf-8"
    )
    sys.path.append(str(folder))
    import found_four.also  # type: ignore[import-not-found]

    assert named(found_four.also.project).reference == "found_four.project:project"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": 3}, "model is of type int, allowed a function or a module"),
        ({"task": torch.zeros(1)}, "task is of type Tensor"),
        ({"partition": "iid"}, "partition is of type str"),
        ({"data": lambda node: None, "partition": lambda *_: None}, "data gives each node its own"),
    ],
)
def test_a_project_of_wrong_parts_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Project(**given)  # type: ignore[arg-type]


def test_the_place_of_a_syntax_error_is_shown(package: Package) -> None:
    folder = package("found_typo", "x = 1\ndef f(:\n")
    with pytest.raises(BadInput, match=r"importing 'found_typo.project' failed: SyntaxError: ") as failed:
        loaded_from("found_typo.project:project", str(folder))
    (trace,) = failed.value.__notes__
    assert 'found_typo/project.py", line 2' in trace
    assert "def f(:" in trace


def test_a_message_of_several_lines_is_one_with_its_class_and_its_place() -> None:
    def fails() -> None:
        raise ValueError("first\n  second of 42")

    with pytest.raises(ValueError, match="first") as raised:
        fails()
    refusal = explained("its data cannot be read", raised.value)
    line = raised.traceback[-1].lineno + 1
    place = f"(test_loading.py:{line} in fails)"
    assert str(refusal) == f"run.project: its data cannot be read: ValueError: first second of 42 {place}"
    assert refusal.unnamed == f"run.project: its data cannot be read: ValueError {place}"


def test_frames_of_all_our_packages_are_left_out() -> None:
    with pytest.raises(AttributeError) as raised:
        write_sealed(3, {}, {})  # type: ignore[arg-type] -- anything that fails in strategies
    (note,) = explained("it", raised.value).__notes__
    assert note.count("File ") == 1
    assert "test_loading.py" in note


def test_what_is_handed_over_must_be_a_project() -> None:
    with pytest.raises(BadInput, match="given a int, wanted a lethe"):
        named(3)  # type: ignore[arg-type] -- what a user may hand over


def test_a_moved_project_is_found_from_its_own_folder(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reference = package("found_moved", SOURCE), "found_moved.project:project"
    gone = str(folder / "gone")
    monkeypatch.chdir(folder)
    assert folder_now(reference, gone) == gone
    (folder / "pyproject.toml").write_text(f'[tool.lethe]\nproject = "{reference}"\n', encoding="utf-8")
    assert folder_now(reference, gone) == str(folder)
    assert folder_now("another:project", gone) == gone
    assert folder_now(reference, str(folder / "found_moved")) == str(folder / "found_moved")
