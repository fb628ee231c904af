"""app/data/csv_files.py: what pandas would read as something else is refused, with the number of the line."""

from pathlib import Path

import pandas as pd
import pytest

from app.data.csv_files import read_csv
from strategies.core.errors import BadInput


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,y\n",
        "\ufeffa,b\n1,x\n2,y\n",
        "a,b\r\n1,x\r\n2,y\r\n",
        '\na,b\n\n1,x\n"2","y"\n\n',
    ],
)
def test_by_hand(tmp_path: Path, text: str) -> None:
    """With and without a byte order mark, Windows' ends of lines, empty lines, quotes: the same table."""
    (tmp_path / "t.csv").write_bytes(text.encode())
    found = read_csv(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(found, pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), check_dtype=False)


def test_a_field_may_hold_commas_and_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n"x\ny",1\n"u,v",2\n')
    assert read_csv(tmp_path / "t.csv").to_dict("list") == {"a": ["x\ny", "u,v"], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2,3\n4,5,6\n", r"t\.csv, line 2: has 3 fields, but the header names 2 columns"),
        ("a,b\n1,2\n4\n", r"t\.csv, line 3: has 1 field, but the header names 2 columns"),
        ('a,b\n"1\n1",2\n3,4\n5,6,7\n', r"t\.csv, line 5: has 3 fields"),
        ("a,b,a\n1,2,3\n", r"t\.csv: has two columns named 'a'; rename one"),
        (",a\n0,1\n", r"t\.csv: column 1 has no name; name it, or leave the index out \(index=False\)"),
        (
            "a;b\n1,5;2\n",
            r"t\.csv: its fields are separated by semicolons; wanted commas, and decimal points",
        ),
        ("a\tb\n1\t2\n", "separated by tabs"),
        ("", r"t\.csv: is empty; wanted a row of column names"),
        ("\n\n", "is empty"),
        ("stadt,b\nKöln,1\n".encode("latin-1"), r"t\.csv: is not in UTF-8 \(byte 0xf6\); write it in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), r"is not in UTF-8 \(byte 0xff\)"),
        ("a,b\n" + "x" * 200_000 + ",1\n", r"cannot be read as a table \(field larger than field limit"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=said):
        read_csv(tmp_path / "t.csv")
