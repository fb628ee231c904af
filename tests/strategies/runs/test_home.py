"""Names of runs, and nothing outside their home."""

import re
from pathlib import Path

import pytest

from strategies.core.errors import BadInput
from strategies.runs.home import expand, find, list_runs, make, make_free, place


@pytest.mark.parametrize(
    "name",
    ["..", ".", "../out", "a/b", "/etc", "/", "a\\b", ".hidden", "-rf", "a b", "a\n", "é", "x" * 129, "~"],
)
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"name '{name}': expected a plain folder name")):
        place(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "run-1", "2026.01_x+y=z", "A" * 128])
def test_plain_names_are_taken(tmp_path: Path, name: str) -> None:
    assert place(tmp_path, name) == tmp_path / name


def test_a_link_out_of_the_home_is_refused(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / "out").symlink_to(outside)
    (home / "dangling").symlink_to(tmp_path / "nowhere")
    (home / "within").symlink_to(home / "other")
    for name in ("out", "dangling"):
        with pytest.raises(BadInput, match=f"name '{name}': .* is a link that leads to .*, out of"):
            place(home, name)
    assert place(home, "within") == home / "within"


def test_a_home_that_is_a_link_is_a_home(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    assert make(place(tmp_path / "home", "run")).is_dir()


def test_made_up_names_differ_however_fast_runs_start(tmp_path: Path) -> None:
    """The third in one second is ``<date>-<time>-flwr-fedadam-3``."""
    names = [make_free(tmp_path / "home", "flwr:FedAdam").name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"\d{8}-\d{6}-flwr-fedadam(-\d)?", name) for name in names)
    assert make_free(tmp_path / "home", "::").name.endswith("-run")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match=r"is a file; choose another run\.name or run\.home"):
            make_free(home, "x")
    with pytest.raises(BadInput, match="is a file"):
        make(tmp_path / "file")


def test_a_run_is_found_by_name_then_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for folder in (home / "both", tmp_path / "both", tmp_path / "near"):
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
    monkeypatch.chdir(tmp_path)
    assert find("both", home) == home / "both"
    assert find("./both", home) == Path("both")
    assert find("near", home) == Path("near")
    assert find(str(tmp_path / "near"), None) == tmp_path / "near"
    with pytest.raises(BadInput, match=r"run 'nix': no such run or folder; the last runs in .*home are both"):
        find("nix", home)
    with pytest.raises(BadInput, match=r"run '': no such run or folder$"):
        find("", None)


def test_runs_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", "unmarked"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        (tmp_path / name / "run.json").touch()
    (tmp_path / "file").touch()
    assert list_runs(tmp_path) == ["a", "b"]
    assert list_runs(tmp_path / "absent") == []


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(BadInput, match="~nobody-of-this-name/runs: there is no such user"):
        expand("~nobody-of-this-name/runs")
