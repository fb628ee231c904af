"""strategies/log/sealing.py and keys.py: what is sealed comes back whole or not at all."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings, strategies as st

from strategies.core.errors import BadInput, RunCorrupt
from strategies.log.keys import LogKeys
from strategies.log.sealing import seal, unseal

KEY = bytes(range(32))
SEGMENT = 16


def test_one_segment_by_hand() -> None:
    """Nonce: the prefix and four zero bytes; bound to it: the length in 8 bytes, then the context."""
    sealed = bytes(seal(KEY, b"abc", b"what"))
    plain = AESGCM(KEY).decrypt(sealed[:8] + bytes(4), sealed[8:], bytes(7) + b"\x03what")
    assert plain == b"abc"
    assert len(sealed) == 8 + 3 + 16


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=70), context=st.binary(max_size=9))
def test_it_comes_back(content: bytes, context: bytes) -> None:
    assert unseal(KEY, seal(KEY, content, context, SEGMENT), context, SEGMENT) == content


@pytest.mark.parametrize("length", [0, 1, 16, 33])
def test_every_flipped_bit_and_every_cut_is_noticed(length: int) -> None:
    sealed = seal(KEY, bytes(length), b"x", SEGMENT)
    for position in range(len(sealed)):
        for bit in range(8):
            sealed[position] ^= 1 << bit
            with pytest.raises(ValueError, match="not what was encrypted"):
                unseal(KEY, sealed, b"x", SEGMENT)
            sealed[position] ^= 1 << bit
        with pytest.raises(ValueError, match=r"not what was encrypted|cut off"):
            unseal(KEY, sealed[:position], b"x", SEGMENT)


def test_segments_cannot_be_moved_dropped_or_put_elsewhere() -> None:
    sealed = seal(KEY, bytes(range(48)), b"x", SEGMENT)
    pieces = [sealed[:8], *(sealed[8 + 32 * i : 40 + 32 * i] for i in range(3))]
    for order in ([0, 2, 1, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2, 2, 3]):
        with pytest.raises(ValueError, match="not what was encrypted"):
            unseal(KEY, bytearray().join(pieces[i] for i in order), b"x", SEGMENT)
    with pytest.raises(ValueError, match="not what was encrypted"):
        unseal(KEY, sealed, b"y", SEGMENT)


def test_sealing_twice_gives_different_bytes() -> None:
    assert seal(KEY, b"abc", b"") != seal(KEY, b"abc", b"")


def test_a_key_is_its_owners_alone_and_the_same_the_next_time(tmp_path: Path) -> None:
    keys = LogKeys.create(tmp_path)
    key = keys.read_or_make("A")
    path = keys.folder / "%41.key"
    assert LogKeys(keys.folder).read("A") == LogKeys(keys.folder).read_or_make("A") == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert LogKeys.create(tmp_path).read_or_make("A") != key
    path.chmod(0o640)
    with pytest.raises(BadInput, match=r"others may read the key \(mode 640\); chmod 600"):
        LogKeys(keys.folder).read("A")


def test_every_flipped_byte_of_a_key_is_noticed(tmp_path: Path) -> None:
    keys = LogKeys.create(tmp_path)
    keys.read_or_make("a")
    path = keys.folder / "a.key"
    content = bytearray(path.read_bytes())
    for position in range(len(content)):
        content[position] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(RunCorrupt, match=r"a\.key: damaged"):
            LogKeys(keys.folder).read("a")
        content[position] ^= 0x10


def test_a_destroyed_key_is_overwritten_and_forgotten(tmp_path: Path) -> None:
    keys = LogKeys.create(tmp_path)
    keys.read_or_make("a")
    with (keys.folder / "a.key").open("rb") as held:
        keys.destroy("a")
        assert held.read() == bytes(64)
    assert not keys.has("a")
    with pytest.raises(RunCorrupt, match=r"a\.key: missing"):
        keys.read("a")
    keys.destroy("a")
