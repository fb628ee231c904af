"""File names for clients."""

import hashlib
import re

_LONGEST = 200


def file_stem(client_id: str) -> str:
    """Return a file name for a client-id: different for different ids even where names ignore case.

    Lower-case letters, digits, ``_`` and ``-`` stand for themselves, every other byte for ``%`` and its code;
    an id too long for a file name becomes ``%%`` and its SHA-256.

    Examples
    --------
    >>> file_stem("hospital-a"), file_stem("../A")
    ('hospital-a', '%2e%2e%2f%41')
    """
    if client_id.isascii() and client_id.isdecimal() and len(client_id) <= _LONGEST:
        return client_id
    stem = re.sub(r"[^a-z0-9_-]", lambda m: "".join(f"%{byte:02x}" for byte in m[0].encode()), client_id)
    return stem if len(stem) <= _LONGEST else "%%" + hashlib.sha256(client_id.encode()).hexdigest()
