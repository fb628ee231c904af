"""Requests to forget."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from strategies.core.errors import BadInput
from strategies.runs.home import place
from unlearning.request import ForgetRequest, read_samples


def test_kind_and_name() -> None:
    """Each kind has a name that says what it is about."""
    assert (ForgetRequest(clients=("7", "3")).kind, ForgetRequest(clients=("7", "3")).name) == (
        "client",
        "client-3-7",
    )
    assert (ForgetRequest(classes=(7,)).kind, ForgetRequest(classes=(7,)).name) == ("class", "class-7")
    assert ForgetRequest(samples={"3": (9, 5, 5)}).samples == {"3": (5, 9)}
    assert ForgetRequest(samples={"3": (5, 9)}).name.startswith("sample-3x2-")


def test_same_request_same_name_and_another_another() -> None:
    """Order and repetition do not matter; a different position does."""
    assert ForgetRequest(samples={"3": (5, 9)}).name == ForgetRequest(samples={"3": (9, 5, 9)}).name
    assert ForgetRequest(samples={"3": (5, 9)}).name != ForgetRequest(samples={"3": (5, 8)}).name


ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(first=ids, second=ids)
def test_names_are_safe_as_file_names_and_distinct(first: str, second: str) -> None:
    """No separator, no leading dot, and two clients never share a name."""
    name = ForgetRequest(clients=(first,)).name
    assert place(Path("forget"), f"{name}-distill").name == f"{name}-distill"
    assert (first == second) == (name == ForgetRequest(clients=(second,)).name)


def test_a_request_for_many_has_a_name_that_the_disk_takes() -> None:
    """Told apart by what is cut off."""
    clients = tuple(f"hospital-{number}" for number in range(100))
    samples = ForgetRequest(samples=dict.fromkeys(clients, (0,)))
    names = [ForgetRequest(clients=clients).name, ForgetRequest(clients=clients[:-1]).name, samples.name]
    assert len(set(names)) == 3
    assert max(map(len, names)) < 60


@given(st.dictionaries(ids, st.lists(st.integers(0, 99), min_size=1).map(tuple), min_size=1, max_size=3))
def test_json_round_trip(samples: dict[str, tuple[int, ...]]) -> None:
    """`from_json` reads what `to_json` wrote."""
    request = ForgetRequest(samples=samples)
    assert ForgetRequest.from_json(request.to_json()) == request


def test_drop_is_what_the_others_leave_out() -> None:
    """A class request drops labels, a sample request positions; a forgotten client is not asked at all."""
    assert ForgetRequest(classes=(7,)).drop.config("0") == {"drop-classes": [7]}
    assert ForgetRequest(samples={"3": (5,)}).drop.config("3") == {"drop-indices": [5]}
    assert ForgetRequest(samples={"3": (5,)}).drop.config("4") == {}
    assert ForgetRequest(clients=("3",)).drop.config("3") == {}


@pytest.mark.parametrize(
    ("given_parts", "message"),
    [
        ({}, "exactly one of the three"),
        ({"clients": ("1",), "classes": (2,)}, "exactly one of the three"),
        ({"classes": (-1,)}, "whole numbers from 0"),
        ({"samples": {"3": (-1,)}}, "whole numbers from 0"),
        ({"samples": {"3": ()}}, "at least one position"),
    ],
)
def test_bad_requests(given_parts: dict[str, object], message: str) -> None:
    """Each is refused with what is allowed."""
    with pytest.raises(BadInput, match=message):
        ForgetRequest(**given_parts)  # type: ignore[arg-type]


def test_samples_file(tmp_path: Path) -> None:
    """The file is a JSON object of positions by client-id."""
    path = tmp_path / "samples.json"
    path.write_text('{"3": [1, 2], "hospital-a": [0]}')
    assert read_samples(path) == {"3": (1, 2), "hospital-a": (0,)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_samples_file_is_read_as_any_editor_saves_it(tmp_path: Path, encoding: str) -> None:
    """Windows' own editors put a mark before the text."""
    path = tmp_path / "samples.json"
    path.write_bytes('{"klinik-ä": [0]}\r\n'.encode(encoding))
    assert read_samples(path) == {"klinik-ä": (0,)}


@pytest.mark.parametrize(
    "text", ["[1, 2]", '{"3": 1}', '{"3": [1.5]}', '{"3": [-1]}', '{"3": [true]}', '{"3": "12"}', "{"]
)
def test_bad_samples_files(tmp_path: Path, text: str) -> None:
    """Anything else is refused by name of the file."""
    path = tmp_path / "samples.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"samples\.json"):
        read_samples(path)


def test_missing_samples_file(tmp_path: Path) -> None:
    """The message says which file."""
    with pytest.raises(BadInput, match=r"cannot read .*nothing\.json"):
        read_samples(tmp_path / "nothing.json")
