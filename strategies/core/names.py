"""Names of clients, and those that stand for several; needs no torch."""

import hashlib
import re

EVERYBODY = "all"
"""In place of a client-id, in faults and sums: all clients of the round."""
_SHOWN = 40
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def client_id_fault(client_id: str) -> str:
    """Return why a text is not a valid client-id, in a few words; empty if it is valid.

    Examples
    --------
    >>> client_id_fault("hospital-a")
    ''
    >>> client_id_fault("a,b")
    "is 'a,b': expected 1 to 64 ASCII letters, digits, '.', '_' and '-', no sign first"
    """
    if client_id == EVERYBODY:
        return f"is '{EVERYBODY}', which stands for everybody"
    if _CLIENT_ID.fullmatch(client_id):
        return ""
    shown = client_id if len(client_id) <= _SHOWN else f"{client_id[:_SHOWN]}… ({len(client_id)} characters)"
    return f"is {shown!r}: expected 1 to 64 ASCII letters, digits, '.', '_' and '-', no sign first"


def client_sort_key(client_id: str) -> tuple[int, int, str]:
    """Order client-ids: whole numbers by value, then names by text.

    Examples
    --------
    >>> sorted(["b", "10", "9", "a"], key=client_sort_key)
    ['9', '10', 'a', 'b']
    """
    return (0, int(client_id), client_id) if client_id.isdecimal() else (1, 0, client_id)


def short_hash(text: str) -> str:
    """Return six hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]
