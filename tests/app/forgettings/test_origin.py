"""app/forgettings/origin.py: what a run comes from, and whether that still holds what a request names."""

import json
from pathlib import Path

import pytest

from app.forgettings.lineage import Relative, check_origin, children, parent_of, relatives
from app.forgettings.names import ORIGIN
from app.forgettings.origin import Origin, forgotten_in, read_origin, weights_origin, write_origin
from app.workflows.showing import run_on_a_screen
from strategies.core.errors import RunCorrupt
from strategies.runs.folder import RunFolder
from strategies.runs.home import MARKER
from unlearning.request import ForgetRequest

FORGOTTEN = "client-2-subtract"


def made_without(*forgotten: ForgetRequest) -> Origin:
    return Origin("continued", "first", "0" * 32, Path("/runs/first"), "", "", 3, forgotten)


CLIENT, CLASS = ForgetRequest(clients=("2",)), ForgetRequest(classes=(7,))
SAMPLES = ForgetRequest(samples={"1": (4, 9)})


@pytest.mark.parametrize(
    ("forgotten", "request_", "holds"),
    [
        ((), CLIENT, True),
        ((CLIENT,), CLIENT, False),
        ((CLIENT,), ForgetRequest(clients=("2", "3")), True),  # Client 3 is still in it
        ((ForgetRequest(clients=("1", "2", "3")),), CLIENT, False),
        ((CLIENT,), CLASS, True),
        ((CLASS,), CLASS, False),
        ((SAMPLES,), ForgetRequest(samples={"1": (9,)}), False),
        ((ForgetRequest(samples={"1": (4,)}),), SAMPLES, True),
        ((ForgetRequest(clients=("1",)),), SAMPLES, False),  # With the client went its examples
        ((SAMPLES,), ForgetRequest(clients=("1",)), True),
    ],
)
def test_holds(forgotten: tuple[ForgetRequest, ...], request_: ForgetRequest, holds: bool) -> None:
    assert made_without(*forgotten).holds(request_) is holds


def test_the_record_is_read_as_it_was_written_and_a_damaged_one_is_named(small: RunFolder) -> None:
    origin = Origin.at(small, FORGOTTEN, "continued")
    assert (origin.run, origin.rounds, origin.forgotten) == ("small", 3, (CLIENT,))
    child = RunFolder.create(small.path.parent, "child", "")
    write_origin(child, origin)
    assert read_origin(child) == origin
    assert forgotten_in(child) == (CLIENT,)
    write_origin(child, Origin.at(small, FORGOTTEN, "weights"))
    assert forgotten_in(child) == ()  # A new training, in which its clients may be others
    document = json.loads((child.path / ORIGIN).read_text())
    (child.path / ORIGIN).write_text(json.dumps({**document, "rounds": "three"}))
    with pytest.raises(RunCorrupt, match="damaged at 'rounds'"):
        read_origin(child)


def test_weights_of_a_run_are_known_and_those_of_a_file_are_not(small: RunFolder, tmp_path: Path) -> None:
    found = weights_origin(str(small.path / "forget" / FORGOTTEN))
    assert found is not None
    assert (found.how, found.run_id, found.place) == ("weights", small.run_id, f"small/forget/{FORGOTTEN}")
    assert weights_origin("") is None
    assert weights_origin(str(small.path / "model.safetensors")) is None
    assert weights_origin(str(tmp_path)) is None


def test_a_parent_is_known_by_its_id_wherever_it_lies(small: RunFolder, tmp_path: Path) -> None:
    child = RunFolder.create(tmp_path, "child", "")
    write_origin(child, Origin.at(small, "", "continued"))
    assert check_origin(child)[0] is True
    small.path.rename(tmp_path / "renamed")
    renamed = RunFolder(tmp_path / "renamed")
    own = Relative(child, child.run_id, read_origin(child))
    parent, said = parent_of(own, relatives([tmp_path]))
    assert parent is not None
    assert parent.path == renamed.path
    assert said == f"moved from {small.path} to {renamed.path}"
    assert check_origin(child)[0] is True
    (renamed.path / "model.safetensors").write_bytes(b"another")
    assert check_origin(child) == (
        False,
        f"{renamed.path / 'model.safetensors'} is another file than the one that this run went on from",
    )
    (renamed.path / MARKER).unlink()
    found, said = check_origin(child)
    assert found is None
    assert said.endswith(f"…) was removed, or moved from {small.path}")


def test_children_are_those_of_the_run_itself_and_a_screen_shows_them(small: RunFolder) -> None:
    """Not its grandchild, and none that cannot be read."""
    home = small.path.parent
    for name, parent, how in (("child", "small", "weights"), ("grandchild", "child", "continued")):
        made = RunFolder.create(home, name, "")
        write_origin(made, Origin(how, parent, RunFolder(home / parent).run_id, home, "", "", 3, ()))
    damaged = RunFolder.create(home, "damaged", "")
    (damaged.path / ORIGIN).write_text("no JSON")
    assert list(children(small)) == ["child"]
    assert run_on_a_screen(small)["children"] == [{"run": "child", "how": "weights", "forgetting": ""}]
    parent_shown = run_on_a_screen(RunFolder(home / "grandchild"))["parent"]
    assert (parent_shown["run"], parent_shown["how"], parent_shown["rounds"]) == ("child", "continued", 3)
