"""strategies/runs/tail.py: what was added to a file since the last look."""

import json
from pathlib import Path

from hypothesis import given, settings, strategies as st

from strategies.runs.json_lines import append_line, rewind_lines
from strategies.runs.tail import Tail


def test_follows_what_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.fresh() == (False, [])
    append_line(path, {"round": 1})
    assert tail.fresh() == (False, [{"round": 1}])
    assert tail.fresh() == (False, [])
    with path.open("ab") as file:
        file.write(b'{"round"')
    assert tail.fresh() == (False, [])
    with path.open("ab") as file:
        file.write(b": 2}\nno JSON\n")
    assert tail.fresh() == (False, [{"round": 2}])


def test_a_file_that_is_cut_replaced_or_gone_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    for number in (1, 2, 3):
        append_line(path, {"round": number})
    assert len(tail.fresh()[1]) == 3
    rewind_lines(path, 1)
    append_line(path, {"round": 2, "again": 1})
    assert tail.fresh() == (True, [{"round": 1}, {"round": 2, "again": 1}])
    path.write_text('{"round": 9}\n')
    assert tail.fresh() == (True, [{"round": 9}])
    path.unlink()
    assert tail.fresh() == (True, [])
    assert tail.fresh() == (False, [])


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), max_size=8))
def test_pieces_of_any_size_give_every_line_once(tmp_path_factory: object, cuts: list[int]) -> None:
    content = "".join(json.dumps({"n": number}) + "\n" for number in range(12)).encode()
    path = tmp_path_factory.mktemp("tail") / "lines"  # type: ignore[attr-defined]
    path.touch()
    tail, found, at = Tail(path), [], 0
    for cut in [*cuts, len(content)]:
        with path.open("ab") as file:
            file.write(content[at : at + cut])
        at += cut
        found += tail.fresh()[1]
    assert found == [{"n": number} for number in range(12)]
