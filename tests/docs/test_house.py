"""The picture of the house: what is drawn of a small tree, and that the real one is whole and up to date."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from docs import drawing, house
from tests.browser import measured

ROOT = Path(__file__).parents[2]
TREE = {
    "docs/house.txt": """# A comment.
app: cli/ + extra.py | on top

app: left/ | first
app: right/ gone/ | second

unlearning: methods.py | imports nothing
unlearning: gone.py | is not there

strategies: alpha.py + * | algorithms

strategies: core/ registry.py | at the bottom
""",
    "app/__init__.py": "",
    "app/cli/__init__.py": "from app import left\nimport app.right.inner\nimport strategies.core, os\n",
    "app/extra.py": "",
    "app/left/__init__.py": "def late():\n    from strategies.core import seeds\n",
    "app/right/__init__.py": "",
    "app/right/inner.py": "if TYPE_CHECKING:\n    import app.cli\nfrom . import inner\n",
    "unlearning/methods.py": "",
    "strategies/alpha.py": "from strategies.core.seeds import draw\n",
    "strategies/beta/__init__.py": "",
    "strategies/beta/beta.py": "from ..core import seeds\nfrom strategies.core.seeds import draw\n",
    "strategies/core/__init__.py": "",
    "strategies/core/seeds.py": "",
    "strategies/registry.py": 'NAMES = {"a": "strategies.alpha", "b": "strategies.beta.beta"}\n',
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small house that is whole and drawn."""
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert (house.main([]), house.main(["--check"])) == (0, 0)
    return tmp_path


def plan_and_doors(root: Path) -> tuple[list[drawing.Room], dict[drawing.Door, int]]:
    known = house.sources(root)
    plan = house.rooms(root, known)
    found, wrong = house.doors(root, known, plan)
    assert wrong == []
    return plan, found


# a small house


def test_the_rooms_that_exist_are_drawn(tree: Path) -> None:
    plan, _ = plan_and_doors(tree)
    titles = ["cli/ …", "left/", "right/", "methods.py", "alpha.py …", "core/ registry.py"]
    assert [room.title for room in plan] == titles
    assert [room.floor for room in plan] == [0, 1, 1, 2, 3, 4]
    svg = (tree / house.PICTURE).read_text(encoding="utf-8")
    assert re.findall(r'class="title"[^>]*>([^<]*)<', svg) == titles


def test_every_import_that_runs_is_counted(tree: Path) -> None:
    """Those of a function and of a folder above too; not those for types alone, nor those within a room.

    Each of both algorithms imports the seeds of core, one of them in two lines, which is one import.
    """
    _, found = plan_and_doors(tree)
    assert {(a.title, b.title): n for (a, b), n in found.items()} == {
        ("cli/ …", "left/"): 1,
        ("cli/ …", "right/"): 1,
        ("cli/ …", "core/ registry.py"): 1,
        ("left/", "core/ registry.py"): 1,
        ("alpha.py …", "core/ registry.py"): 2,
    }


def test_an_arrow_is_left_out_where_a_longer_way_leads(tree: Path) -> None:
    """From the command line to core by left; no other two rooms have a second way."""
    _, found = plan_and_doors(tree)
    left_out = found.keys() - house.kept(found).keys()
    assert {(a.title, b.title) for a, b in left_out} == {("cli/ …", "core/ registry.py")}
    svg = (tree / house.PICTURE).read_text(encoding="utf-8")
    assert svg.count('class="line"') == svg.count('class="head"') == 4


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "strategies/core/seeds.py",
            "def late():\n    import app.cli\n",
            "strategies.core.seeds imports app.cli, which is on no lower floor in docs/house.txt",
        ),
        (
            "app/right/inner.py",
            "from app import left\n",
            "app.right.inner imports app.left, which is on no lower floor in docs/house.txt",
        ),
        ("app/new/__init__.py", "", "app.new: in no room of docs/house.txt"),
        ("app/right/inner.py", "from strategies import alpha\n", "docs/house.svg: stale; run make generate"),
        ("docs/house.svg", "<svg/>\n", "docs/house.svg: stale; run make generate"),
    ],
    ids=["upward", "same floor", "no room", "new arrow", "changed picture"],
)
def test_the_check_fails_with_one_line(
    tree: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, line: str
) -> None:
    (tree / file).parent.mkdir(exist_ok=True)
    (tree / file).write_text(text, encoding="utf-8")
    assert house.main(["--check"]) == 1
    assert capsys.readouterr().err == f"{line}\n"
    assert house.main([]) == int("stale" not in line)


def test_a_way_up_is_drawn_red_and_fails_every_time(tree: Path) -> None:
    (tree / "strategies/core/seeds.py").write_text("import app.cli\n", encoding="utf-8")
    assert (house.main([]), house.main(["--check"])) == (1, 1)
    svg = (tree / house.PICTURE).read_text(encoding="utf-8")
    assert svg.count('<g class="wrong">') == 1


def test_a_line_of_the_plan_that_cannot_be_read_is_named(tree: Path) -> None:
    (tree / house.PLAN).write_text("cellar: wine/ | bottles\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"given 'cellar: wine/ \| bottles', allowed 'WING: NAMES \| WHAT'"):
        house.main([])


def test_a_floor_with_too_much_on_it_is_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = TREE["docs/house.txt"].replace("| first", "| first" + "!" * 60)
    (tree / house.PLAN).write_text(wide, encoding="utf-8")
    assert house.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/house.txt: the floor of left/ is too wide\n"


# the real one


def test_the_house_has_no_way_up_and_its_picture_is_not_stale() -> None:
    """In a fresh interpreter each time, whose sets have another order."""
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "docs.house", "--check"]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_no_line_runs_through_a_box_or_over_another_line() -> None:
    plan, found = plan_and_doors(ROOT)
    assert 20 <= len(plan) <= 30
    passing = []
    for line in drawing._lines(plan, list(house.kept(found))).values():
        assert all(top < below for (_, top), (_, below) in pairwise(line))
        passing += line[1:-1]
    assert len(passing) == len(set(passing)) > 10
    boxes = [(room.top, room.left, room.left + room.width) for room in plan]
    assert not [at for at in passing for top, left, right in boxes if at[1] == top and left < at[0] < right]
    assert all(left > 2 and right < 398 for _, left, right in boxes)


def test_the_product_does_not_import_the_docs() -> None:
    files = [path for package in drawing.WINGS for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 300
    assert not [
        p for p in files if re.search(r"^\s*(from|import) docs\b", p.read_text("utf-8"), re.MULTILINE)
    ]


@pytest.mark.check
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1000])
def test_the_picture_can_be_read(tmp_path: Path, width: int, dark: bool) -> None:
    svg = (ROOT / house.PICTURE).read_text(encoding="utf-8")
    style = "<style>body { margin: 0 } svg { max-width: 100%; height: auto }</style>"
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset='utf-8'>{style}{svg}", encoding="utf-8")
    found = measured(page, width, dark=dark)
    assert [found[what] for what in ("small", "cut", "wide", "overlapping")] == [[]] * 4
