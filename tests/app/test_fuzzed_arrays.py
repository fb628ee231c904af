"""Files that numpy and TenSEAL parse, built wrong part by part: read, or refused in one line that names them.

Unlike damaged bytes, which mostly end at a checksum, each archive here is sound where it is not wrong on
purpose: names, types and shapes of arrays, their headers, how members are packed, what the archive says of
them. As many cases as in `tests.test_fuzzing`.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from app.client.encryption_key import secret_in
from app.data.npz import read_npz
from app.report.triggered import TRIGGERED, read_triggered
from strategies.core.errors import BadInput, LetheError, RunCorrupt
from tests.npy_files import arrays, headers, npy
from tests.test_fuzzing import FUZZED, damage

NAMES = ["x", "y", "x_train", "y_train", "x_test", "y_test", "pixels", "true-labels", "prediction/after", ""]
Member = tuple[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A file's name, how it is read, and the error that says what is wrong with it."""

    file: str
    read: Callable[[Path], object]
    error: type[LetheError]


READERS: Mapping[str, Reader] = {
    "data": Reader("data.npz", read_npz, BadInput),
    "triggered": Reader(TRIGGERED, lambda path: read_triggered(path.parent), RunCorrupt),
}
RIGHT: Mapping[str, dict[str, np.ndarray]] = {
    "data": {"x_train": np.arange(24, dtype=np.float32).reshape(6, 4), "y_train": np.arange(6) % 2},
    "triggered": {
        "pixels": np.ones((6, 2, 2), np.float32),
        "true-labels": np.arange(6),
        "prediction/after": np.zeros(6, np.int64),
    },
}


MEMBERS = st.tuples(st.sampled_from(NAMES), arrays() | headers() | st.binary(max_size=40))
FLAGS = st.sampled_from([1, 1 << 5, 1 << 6, 1 << 11, 1 << 13])
METHODS = st.sampled_from([0, 1, 8, 9, 12, 14, 93, 95, 99])
VERSIONS = st.sampled_from([10, 20, 45, 63, 64, 255])
PACKED = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
SIZES = st.sampled_from([0, 1, 100, 2**31, 2**32 - 1])


def archive(members: dict[str, bytes], packed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


@st.composite
def claims(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw what an archive says wrongly of its first member: in the member, in the list, in both."""
    field, width, value = draw(
        st.one_of(
            st.tuples(st.just(6), st.just(2), FLAGS),
            st.tuples(st.just(8), st.just(2), METHODS),
            st.tuples(st.just(4), st.just(2), VERSIONS),
            st.tuples(st.just(14), st.just(4), SIZES),  # The checksum
            st.tuples(st.just(18), st.just(4), SIZES),
            st.tuples(st.just(22), st.just(4), SIZES),
        )
    )
    where = draw(st.sampled_from(["member", "list", "both"]))

    def apply(content: bytes) -> bytes:
        changed, listed = bytearray(content), content.index(b"PK\x01\x02")
        places = {"member": [field], "list": [listed + field + 2], "both": [field, listed + field + 2]}
        for place in places[where]:
            changed[place : place + width] = value.to_bytes(width, "little")
        return bytes(changed)

    return apply


def read_or_refused(name: str, content: bytes, folder: Path) -> None:
    path = folder / READERS[name].file
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = complaint(READERS[name].read, path, READERS[name].error)
    assert said is None or (said.startswith(f"{path}: ") and "\n" not in said)


def complaint(read: Callable[[Path], object], path: Path, error: type[LetheError]) -> str | None:
    """Read a file, and return the error's message; None where it was read."""
    try:
        read(path)
    except error as reason:
        return str(reason)
    return None


@pytest.mark.parametrize("name", READERS)
@FUZZED
@given(others=st.lists(MEMBERS, min_size=1, max_size=2), dropped=st.integers(0, 3), packed=PACKED)
def test_an_archive_with_another_array_is_read_or_refused(
    name: str, others: list[Member], dropped: int, packed: int, memory_path: Path
) -> None:
    members = {key: npy(array) for key, array in RIGHT[name].items()}
    members.pop(list(RIGHT[name])[dropped] if dropped < len(members) else "", None)
    read_or_refused(name, archive(members | dict(others), packed), memory_path)


@pytest.mark.parametrize("name", READERS)
@FUZZED
@given(
    member=arrays() | headers() | st.binary(max_size=40),
    which=st.integers(0, 2),
    claim=st.none() | claims(),
    change=st.none() | damage(),
)
def test_an_array_of_another_kind_is_read_or_refused(
    name: str,
    member: bytes,
    which: int,
    claim: Callable[[bytes], bytes] | None,
    change: Callable[[bytes], bytes] | None,
    memory_path: Path,
) -> None:
    """In the place of the right one; or all of them are right and the archive is not."""
    members = {key: npy(array) for key, array in RIGHT[name].items()}
    if claim is None and change is None:
        members[list(members)[which % len(members)]] = member
    content = archive(members, zipfile.ZIP_DEFLATED)
    content = content if claim is None else claim(content)
    read_or_refused(name, content if change is None else change(content), memory_path)


@pytest.mark.parametrize("name", READERS)
def test_what_is_right_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / READERS[name].file
    path.write_bytes(archive({key: npy(array) for key, array in RIGHT[name].items()}, zipfile.ZIP_DEFLATED))
    READERS[name].read(path)


# the key of encrypted sums


@pytest.fixture(scope="module")
def key() -> bytes:
    pytest.importorskip("tenseal")
    from strategies.layers.encryption.ckks import new_secret

    return new_secret()


@FUZZED
@given(change=damage() | st.binary(max_size=60).map(lambda other: lambda _: other))
def test_a_key_is_read_or_refused(change: Callable[[bytes], bytes], key: bytes, memory_path: Path) -> None:
    path = memory_path / "ckks.key"
    path.touch(mode=0o600)
    path.write_bytes(change(key))
    said = complaint(secret_in, path, BadInput)
    assert said is None or (said.startswith(f"{path}: ") and "\n" not in said)
