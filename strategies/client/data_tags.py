"""How a client knows the data of a run again: tags of its examples, in order, under a key of its own.

One HMAC-SHA-256 (RFC 2104), cut to 128 bits, for every block of 256 examples in their order; the last one may
be shorter. Examples that were appended later lie behind all of them and change none. Any other change of an
example, a label or the order changes the tag of its block. Key and tags are part of the client's state and
never leave it: it tells others only whether they hold.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from flwr.app import ConfigRecord, RecordDict

from strategies.core.examples import Examples

BLOCK = 256
"""Examples under one tag."""
RECORD = "data-tags"
"""Name of the record in a client's state."""
DataState = Literal["same", "changed", "unknown"]
"""Whether a client's data are those of the run; ``unknown`` where it has no tags of the run."""
_KEY_BYTES = 32
_TAG_BYTES = 16

Tagger = Callable[[bytes, int], bytes]
"""From a key and a number of examples to the tags of so many of the client's first examples."""


@dataclass(frozen=True)
class _Kept:
    """The tags in a client's state; `changed`: the data had changed before the run ended."""

    key: bytes
    count: int
    tags: bytes
    changed: bool = False


def block_tags(examples: Examples, key: bytes, count: int) -> bytes:
    """Return the tags of the first examples, one after the other.

    Parameters
    ----------
    count
        How many of them, at least 0; where there are fewer, the last tags are of other data.

    Examples
    --------
    >>> import torch
    >>> from strategies.core.examples import TensorExamples
    >>> few = TensorExamples(torch.zeros(300, 2), torch.zeros(300, dtype=torch.long))
    >>> len(block_tags(few, b"key", 300)), block_tags(few, b"key", 256) == block_tags(few, b"key", 300)[:16]
    (32, True)
    """
    return b"".join(_tag(examples, start, min(start + BLOCK, count), key) for start in range(0, count, BLOCK))


def _tag(examples: Examples, start: int, stop: int, key: bytes) -> bytes:
    tag = hmac.new(key, f"{start} ".encode(), "sha256")
    for part in examples.fingerprint(torch.arange(start, max(start, min(stop, len(examples))))):
        tag.update(part)
    return tag.digest()[:_TAG_BYTES]


def keep_tags(state: RecordDict, num_examples: int, tagger: Tagger) -> None:
    """Keep the tags of a client's data when it first trains; note if the data change later in the run.

    The client's ``context.state`` is changed in place.
    """
    kept = _read(state)
    if kept is None:
        key = secrets.token_bytes(_KEY_BYTES)
        _write(state, _Kept(key, num_examples, tagger(key, num_examples)))
    elif not kept.changed and not _hold(kept, tagger):
        _write(state, replace(kept, changed=True))


def compare_tags(state: RecordDict, tagger: Tagger) -> DataState:
    """Return whether a client's data are those that it trained on in the run."""
    kept = _read(state)
    if kept is None:
        return "unknown"
    return "same" if not kept.changed and _hold(kept, tagger) else "changed"


def tags_in(state: RecordDict) -> RecordDict:
    """Return the part of a client's state that holds its tags."""
    return RecordDict({RECORD: state[RECORD]} if RECORD in state else {})


def _hold(kept: _Kept, tagger: Tagger) -> bool:
    return hmac.compare_digest(tagger(kept.key, kept.count), kept.tags)


def _read(state: RecordDict) -> _Kept | None:
    record = state.config_records.get(RECORD)
    if record is None:
        return None
    key, count, tags = record.get("key"), record.get("count"), record.get("tags")
    if not isinstance(key, bytes) or not isinstance(count, int) or not isinstance(tags, bytes):
        return None
    return _Kept(key, count, tags, bool(record.get("changed", False)))


def _write(state: RecordDict, kept: _Kept) -> None:
    state[RECORD] = ConfigRecord(
        {"key": kept.key, "count": kept.count, "tags": kept.tags, "changed": kept.changed}
    )
