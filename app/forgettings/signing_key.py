"""The key that signs certificates: made on first use, readable to its owner, its public half beside it."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from strategies.core.errors import BadInput
from strategies.runs.files import not_written, sync_folder

_FOLDER_MODE, _PUBLIC_MODE = 0o700, 0o644


def signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a file (PEM, PKCS 8), made on first use.

    The public half, by which others know the signer, is written beside it: ``certificate.pub.pem`` for
    ``certificate.pem``. The file has mode 600, a new folder mode 700. Two processes that make the key at the
    same time both use the one that was there first.

    Raises
    ------
    BadInput
        If the file holds no such key, others may read it, or the public half is that of another key.
    LetheError
        If the disk does not take it.
    """
    if not path.exists():
        put(path, _new_key())
    key = _read(path)
    public = public_key_path(path)
    if not public.exists():
        put(public, _public_pem(key.public_key()))
        public.chmod(_PUBLIC_MODE)
    if read_public_key(public).public_bytes_raw() != key.public_key().public_bytes_raw():
        raise BadInput(f"{public}: not the public half of {path}; whoever has it would refuse what you sign")
    return key


def public_key_path(path: Path) -> Path:
    """Return where the public half of a private key's file lies."""
    return path.with_name(f"{path.stem}.pub{path.suffix}")


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in a file (PEM).

    Raises
    ------
    BadInput
        If the file is missing or holds no public Ed25519 key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path}: expected a public Ed25519 key in PEM, such as certificate.pub.pem")
    return key


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner may read.

    Raises
    ------
    BadInput
        If it cannot be read, or others may read it.
    """
    try:
        mode, content = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: the key cannot be read ({error.strerror})") from None
    if os.name == "posix" and mode & 0o077:
        raise BadInput(f"{path}: others may read the key (mode {mode:o}); chmod 600, or use another")
    return content


def _read(path: Path) -> Ed25519PrivateKey:
    content = read_private(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # TypeError: it wants a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path}: expected a private Ed25519 key in PEM without a password")
    return key


def put(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole, unless there is one already.

    Raises
    ------
    LetheError
        If the disk does not take it.
    """
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as file:  # Made with mode 600
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, path)
        sync_folder(path.parent)
    except OSError as error:
        raise not_written(path, error) from error


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
