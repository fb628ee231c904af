"""The key that clients encrypt their updates with: in a file of theirs, never the server's."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from app.forgettings.signing_key import put, read_private
from strategies.core.errors import BadInput
from strategies.core.extras import not_installed
from strategies.layers.encryption.ckks import Secret, new_secret

EXTRA = "ckks"
"""The extra that brings the library."""
_MAKE_ONE = "make one with lethe keys FOLDER --encryption"


def is_available() -> bool:
    """Say whether the optional library is installed."""
    return find_spec("tenseal") is not None


def require_library() -> None:
    """Refuse to go on without the optional library.

    Raises
    ------
    BadInput
        Naming what to install.
    """
    if not is_available():
        raise BadInput(
            f'privacy.encryption: given "ckks", but {not_installed("TenSEAL", EXTRA)}; '
            'allowed without it "none"'
        )


def make_key(path: Path) -> bool:
    """Make the key unless it exists; say whether it was made.

    Raises
    ------
    LetheError
        If the disk does not take it.
    """
    require_library()
    if path.exists():
        return False
    put(path, new_secret())
    return True


def secret_in(path: Path) -> Secret:
    """Return the key in a file; an unchanged key is parsed once.

    Raises
    ------
    BadInput
        If it cannot be read, others may read it, or it holds no such key.
    """
    require_library()
    if not path.exists():
        raise BadInput(f"{path}: there is no such key; {_MAKE_ONE}, the same for all clients")
    content = read_private(path)
    try:
        return _secret(content)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; {_MAKE_ONE}") from None


@lru_cache(maxsize=4)
def _secret(content: bytes) -> Secret:
    return Secret(content)
