"""A file of JSON objects, one per line, that only grows. A line counts once its newline is written.

A writer that is killed leaves at most one line without its newline at the end. Readers leave it out, and the
next append cuts it off.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from strategies.core.errors import RunCorrupt
from strategies.runs import files

_PIECE = 2**16
"""Bytes that are read at a time to find the end of the last line."""


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add one object; numbers that are not finite become null.

    Raises
    ------
    LetheError
        If the disk does not take it; what was there stays readable.
    """
    try:
        with path.open("a+b") as file:
            _cut_torn_line(file)
            file.write(files.to_json(dict(line)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise files.not_written(path, error) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects; empty where there is no file.

    Raises
    ------
    RunCorrupt
        If a line with its newline is no JSON object.
    """
    if not path.exists():
        return []
    lines = bytes(files.read_bytes(path)).split(b"\n")[:-1]
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def rewind_lines(path: Path, last_round: int) -> None:
    """Drop the objects whose `round` is above `last_round`, and a line without its newline; the others stay.

    Raises
    ------
    RunCorrupt
        If a line with its newline is no JSON object.
    LetheError
        If the disk does not take the file; the old one is untouched.
    """
    kept = [line for line in read_lines(path) if not _is_after(line, last_round)]
    files.write_text(path, "".join(files.to_json(line) + "\n" for line in kept))


def _is_after(line: Mapping[str, Any], last_round: int) -> bool:
    number = line.get("round")
    return isinstance(number, int | float) and number > last_round


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None if it is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # Not UTF-8, no JSON, or thousands of brackets
        return None
    return found if isinstance(found, dict) else None


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if (found := parsed(line)) is None:
        raise RunCorrupt(
            f"{path}: line {number} is damaged, expected a JSON object; restore the file from a copy"
        )
    return found


def _cut_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _PIECE)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    file.truncate(end)
