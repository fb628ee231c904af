"""app/forgettings/signing_key.py: a key of one's own, made once, that nobody else can read."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from app.forgettings.signing_key import public_key_path, read_public_key, signing_key
from strategies.core.errors import BadInput, LetheError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_with_its_public_half(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "certificate.pem"
    key = signing_key(path)
    assert signing_key(path).private_bytes_raw() == key.private_bytes_raw()
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    public = path.parent / "certificate.pub.pem"
    assert public == public_key_path(path)
    assert read_public_key(public).public_bytes_raw() == key.public_key().public_bytes_raw()
    assert {p.name for p in path.parent.iterdir()} == {"certificate.pem", "certificate.pub.pem"}
    assert b"PRIVATE" not in public.read_bytes()


def test_two_keys_differ(tmp_path: Path) -> None:
    keys = [signing_key(tmp_path / name) for name in ("a.pem", "b.pem")]
    assert keys[0].private_bytes_raw() != keys[1].private_bytes_raw()


def test_no_umask_opens_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        signing_key(tmp_path / "keys" / "certificate.pem")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "keys" / "certificate.pem"), mode(tmp_path / "keys")) == (0o600, 0o700)


def test_whoever_makes_it_at_the_same_time_gets_the_same(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "certificate.pem"
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: signing_key(path).private_bytes_raw(), range(8)))
    assert set(keys) == {signing_key(path).private_bytes_raw()}


def test_a_lost_public_half_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "certificate.pem"
    signing_key(path)
    public_key_path(path).unlink()
    key = signing_key(path)
    found = read_public_key(public_key_path(path)).public_bytes_raw()
    assert found == key.public_key().public_bytes_raw()


def test_a_public_half_of_another_key_is_refused(tmp_path: Path) -> None:
    """Otherwise certificates would be signed that nobody with that file takes for genuine."""
    path = tmp_path / "certificate.pem"
    signing_key(path)
    path.unlink()
    with pytest.raises(BadInput, match=r"certificate\.pub\.pem: not the public half of .*certificate\.pem"):
        signing_key(path)


@pytest.mark.parametrize("permitted", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, permitted: int) -> None:
    path = tmp_path / "certificate.pem"
    signing_key(path)
    path.chmod(permitted)
    with pytest.raises(BadInput, match=rf"others may read the key \(mode {permitted:o}\); chmod 600"):
        signing_key(path)


def private_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_what_is_no_such_key_is_refused(tmp_path: Path) -> None:
    format_ = (Encoding.PEM, PrivateFormat.PKCS8)
    other_kind = generate_private_key(SECP256R1()).private_bytes(*format_, NoEncryption())
    locked = Ed25519PrivateKey.generate().private_bytes(*format_, BestAvailableEncryption(b"secret"))
    for number, content in enumerate((b"", b"no key", other_kind, locked)):
        path = private_file(tmp_path / f"{number}.pem", content)
        with pytest.raises(BadInput, match="expected a private Ed25519 key in PEM without a password"):
            signing_key(path)


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "certificate.pem"
    signing_key(path)
    for content in (b"", path.read_bytes()):
        other = private_file(tmp_path / "other.pem", content)
        with pytest.raises(BadInput, match="expected a public Ed25519 key in PEM"):
            read_public_key(other)
    with pytest.raises(BadInput, match=r"absent\.pem: cannot be read \(No such file or directory\)"):
        read_public_key(tmp_path / "absent.pem")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(LetheError, match=r"keys/certificate\.pem: cannot be written"):
        signing_key(tmp_path / "keys" / "certificate.pem")
