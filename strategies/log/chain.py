"""The hash chain over a log's rounds: each link is the SHA-256 of the one before it and of a round.

    h_0 = {"description": {"dtype": …, "format": …, "layout": …, "retention": …, "version": …, …}}
    h_t = [h_{t-1}, t, averaging, [[t, client, examples, weight, norm, hash of the file], …]]

each in the form of `strategies.runs.files.canonical_json`, entries in the order of the clients. By the files'
hashes the last link stands for every byte of the log. An entry or a round that is changed, removed or moved
breaks the chain from there on. The time of a purge is no part of the chain, but the tombstones that it leaves
are, so the links from there on change.

A chain has no key: anyone who can write the log can make another whole chain. Comparing its last link with
one that was kept elsewhere shows that: in the run's summary, in a signed certificate, on paper.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from strategies.runs.files import canonical_json

LATER = frozenset({"purges", "head", "kept"})
"""What a log's description says that changes in its life."""


def start(description: Mapping[str, str]) -> str:
    """Return h_0, from all that the log said about itself when it was made."""
    return _sha256({"description": {key: description[key] for key in description if key not in LATER}})


def link(before: str, server_round: int, averaging: bool, rows: Iterable[Sequence[object]]) -> str:
    """Return h_t, from the link before it and the round's entries in order, as rows of the index."""
    return _sha256([before, server_round, averaging, [list(row) for row in rows]])


def _sha256(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
