"""Secure aggregation, the server's half: relay keys and shares, add masked vectors, unmask the sum.

The protocol, its paper and what differs stand in `strategies.layers.secagg.client`. The server holds one
vector whatever the number of clients. Whatever a client does wrong is named and goes no further than its
round.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from strategies.core import wire
from strategies.core.arrays import array_in
from strategies.layers.secagg import protocol
from strategies.layers.secagg.masking import (
    KEY_BYTES,
    Vector,
    add_mask,
    add_pair_masks,
    agreed_key,
    public_key,
)
from strategies.layers.secagg.shamir import SECRET_BYTES, SHARE_BYTES, combine
from strategies.server.cohort import Reply
from strategies.server.guard import first_line

Content = Callable[[str], RecordDict]
Ask = Callable[[str, Content, Sequence[str]], Iterable[Reply]]
"""Sends each client a message of a type, and yields the replies."""
Blame = Callable[[str, str], None]
"""Told of each client that did something wrong, and what; of ``all`` where there is no sum at all."""


@dataclass
class _Member:
    """What the server knows of a client in a sum."""

    client_id: str
    cipher_key: bytes = b""
    mask_key: bytes = b""
    sealed: Mapping[int, bytes] = field(default_factory=dict)
    promised: Mapping[int, bytes] = field(default_factory=dict)
    seed_hash: bytes = b""
    opened: dict[int, bytes] = field(default_factory=dict)


@final
class SecureSum:
    """One sum of the vectors of some clients.

    Parameters
    ----------
    threshold
        Share of them that must stay to the end.
    """

    def __init__(self, client_ids: Sequence[str], threshold: float, ask: Ask, blame: Blame) -> None:
        self._session = secrets.token_bytes(protocol.SESSION_BYTES)
        self._members = {number: _Member(i) for number, i in enumerate(client_ids, start=1)}
        self._numbers = {member.client_id: number for number, member in self._members.items()}
        self._needed = protocol.needed(threshold, len(client_ids))
        self._ask, self._blame = ask, blame
        self._survivors: list[int] = []
        self._total: Vector | None = None
        self._keyed: list[int] = []
        self._ready: list[int] = []
        self.suspects: set[str] = set()

    @property
    def survivors(self) -> list[str]:
        """Whose vectors are in the sum."""
        return [self._members[number].client_id for number in sorted(self._survivors)]

    def open(self) -> list[str]:
        """Exchange keys and shares; return the clients ready to send a vector, none if they are too few."""
        keyed = self._step(wire.SECAGG_KEYS, self._members, lambda n: {}, self._take_keys)
        if not self._enough(keyed, "sent keys"):
            return []
        keys: dict[str, wire.ConfigValue] = {
            protocol.NUMBERS: keyed,
            protocol.THRESHOLD: self._needed,
            protocol.CIPHER_KEYS: [self._members[n].cipher_key for n in keyed],
            protocol.MASK_KEYS: [self._members[n].mask_key for n in keyed],
        }
        self._keyed = keyed
        shared = self._step(wire.SECAGG_SHARES, keyed, lambda n: {**keys, protocol.OWN: n}, self._take_shares)
        self._ready = shared if self._enough(shared, "shared their keys") else []
        return [self._members[n].client_id for n in self._ready]

    def invitation(self, client_id: str) -> dict[str, wire.ConfigValue]:
        """Return what a client's message must say, so that it can mask its vector."""
        own = self._numbers[client_id]
        others = [self._members[n] for n in self._ready]
        return {
            protocol.SESSION: self._session,
            protocol.NUMBERS: self._ready,
            protocol.SHARES: [member.sealed[own] for member in others],
            protocol.COMMITMENTS: [member.promised[own] for member in others],
        }

    def add(self, client_id: str, content: RecordDict, size: int) -> None:
        """Take a client's masked vector.

        Raises
        ------
        ValueError
            If it is none, or the client has sent one before.
        """
        number, config = self._numbers[client_id], content.config_records.get(wire.CONFIG, ConfigRecord())
        if (reason := config.get(wire.REFUSED)) is not None:
            raise ValueError(f"refused: {first_line(str(reason))}")
        vector = _vector(content, size)
        if number not in self._ready or number in self._survivors:
            raise ValueError("it takes no part in the sum, or has sent a vector before")
        for other in protocol.numbers(config, protocol.COMPLAINTS):
            if other in self._ready:
                self._name(other, f"its shares for client {client_id} are not what it committed to")
        if self._total is None:
            self._total = np.zeros(size, dtype=np.uint64)
        self._total += vector
        self._survivors.append(number)

    def close(self) -> Vector | None:
        """Return the unmasked sum, modulo 2^64; None and a fault if it cannot be unmasked."""
        survivors = sorted(self._survivors)
        # If no client was ready, `open` has reported the reason
        if not self._ready or not self._enough(survivors, "sent a vector"):
            return None
        dropped = [n for n in self._ready if n not in set(survivors)]
        lists: dict[str, wire.ConfigValue] = {protocol.SURVIVORS: survivors, protocol.DROPPED: dropped}
        opened = self._step(
            wire.SECAGG_UNMASK,
            survivors,
            lambda n: lists,
            lambda n, config: self._take_opened(n, config, survivors, dropped),
        )
        if not self._enough(opened, "opened their shares"):
            return None
        return self._unmasked(survivors, dropped)

    def _unmasked(self, survivors: Sequence[int], dropped: Sequence[int]) -> Vector | None:
        total = self._total
        if total is None:
            return None
        for number in survivors:
            if (seed := self._secret(number, "seed")) is None:
                return None
            add_mask(total, seed, -1)
        for number in dropped:
            if (key := self._secret(number, "key")) is None:
                return None
            self._add_pairs(total, number, key, survivors)
        return total

    def _add_pairs(self, total: Vector, number: int, key: bytes, survivors: Sequence[int]) -> None:
        """Add a lost client's masks with the survivors, so that these cancel."""
        context = protocol.mask_context(self._session)
        seeds = {n: agreed_key(key, self._members[n].mask_key, context) for n in survivors}
        add_pair_masks(total, number, seeds)

    def _secret(self, number: int, what: str) -> bytes | None:
        """Return a client's seed or key from its shares; None and a fault if they do not give it."""
        member = self._members[number]
        right = member.seed_hash if what == "seed" else member.mask_key
        shares = dict(sorted(member.opened.items())[: self._needed])
        if len(shares) < self._needed:
            known = f"{len(shares)} shares of client {member.client_id}'s {what}"
            self._blame(wire.EVERYBODY, f"secure sum: {known} were opened, {self._needed} needed")
            return None
        try:
            secret = combine(shares)
            found = protocol.commitment(secret) if what == "seed" else public_key(secret)
        except ValueError:
            found = b""
        if found == right:
            return secret
        self._name(number, f"the shares that it dealt do not make up its {what}")
        self._blame(
            wire.EVERYBODY, f"client {member.client_id} dealt wrong shares: the sum cannot be unmasked"
        )
        return None

    def _name(self, number: int, reason: str) -> None:
        client_id = self._members[number].client_id
        self.suspects.add(client_id)
        self._blame(client_id, reason)

    def _enough(self, numbers: Sequence[int], what: str) -> bool:
        if len(numbers) >= self._needed:
            return True
        asked = len(self._members)
        self._blame(
            wire.EVERYBODY, f"secure sum: {len(numbers)} of {asked} clients {what}, {self._needed} needed"
        )
        return False

    def _step(
        self,
        message_type: str,
        numbers: Iterable[int],
        entries: Callable[[int], Mapping[str, wire.ConfigValue]],
        take: Callable[[int, Mapping[str, Any]], None],
    ) -> list[int]:
        """Ask clients; return the numbers of those with a valid answer, sorted."""

        def content(client_id: str) -> RecordDict:
            config: dict[str, Any] = {protocol.SESSION: self._session, **entries(self._numbers[client_id])}
            return RecordDict({wire.CONFIG: ConfigRecord(config)})

        taken = []
        for reply in self._ask(message_type, content, [self._members[n].client_id for n in numbers]):
            config = reply.message.content.config_records.get(wire.CONFIG, ConfigRecord())
            try:
                if (reason := config.get(wire.REFUSED)) is not None:
                    raise ValueError(f"refused: {first_line(str(reason))}")
                take(self._numbers[reply.client_id], config)
            except ValueError as error:
                self._blame(reply.client_id, str(error))
                continue
            taken.append(self._numbers[reply.client_id])
        return sorted(taken)

    def _take_keys(self, number: int, config: Mapping[str, Any]) -> None:
        member = self._members[number]
        cipher_key = protocol.byte_string(config, protocol.CIPHER_KEY, KEY_BYTES)
        mask_key = protocol.byte_string(config, protocol.MASK_KEY, KEY_BYTES)
        known = {key for other in self._members.values() for key in (other.cipher_key, other.mask_key)}
        if cipher_key == mask_key or {cipher_key, mask_key} & known:
            raise ValueError("its keys are those of another client, or one key twice")
        _check_key(cipher_key)
        _check_key(mask_key)
        member.cipher_key, member.mask_key = cipher_key, mask_key

    def _take_shares(self, number: int, config: Mapping[str, Any]) -> None:
        member, count = self._members[number], len(self._keyed)
        sizes = frozenset({0, protocol.SEALED_BYTES})
        sealed = protocol.byte_strings(config, protocol.SHARES, count, sizes)
        sizes = frozenset({protocol.COMMITMENTS_BYTES})
        promised = protocol.byte_strings(config, protocol.COMMITMENTS, count, sizes)
        member.seed_hash = protocol.byte_string(config, protocol.SEED_HASH, SECRET_BYTES)
        member.sealed = dict(zip(self._keyed, sealed, strict=True))
        member.promised = dict(zip(self._keyed, promised, strict=True))

    def _take_opened(
        self, number: int, config: Mapping[str, Any], survivors: Sequence[int], dropped: Sequence[int]
    ) -> None:
        """Keep the shares that match their commitments; blame a client that opens another one."""
        owners = [*survivors, *dropped]
        opened = protocol.byte_strings(config, protocol.OPENED, len(owners), frozenset({0, SHARE_BYTES}))
        wrong = []
        for owner, share in zip(owners, opened, strict=True):
            promise, half = self._members[owner].promised[number], SECRET_BYTES
            promise = promise[half:] if owner in set(survivors) else promise[:half]
            if share and protocol.commitment(share) == promise:
                self._members[owner].opened[number] = share
            elif share:
                wrong.append(self._members[owner].client_id)
        if wrong:
            self._name(number, f"its share of client {wrong[0]} is not the one that was dealt")


def _check_key(key: bytes) -> None:
    """Refuse a public key that makes every shared secret the same."""
    try:
        agreed_key(bytes(range(KEY_BYTES)), key, b"")
    except ValueError:
        raise ValueError("its key is none") from None


def _vector(content: RecordDict, size: int) -> Vector:
    arrays = content.array_records
    if list(arrays) != [wire.ARRAYS] or list(arrays[wire.ARRAYS]) != [wire.MASKED]:
        raise ValueError("expected one masked vector")
    try:
        vector = array_in(arrays[wire.ARRAYS][wire.MASKED])
    except ValueError as error:
        raise ValueError(first_line(str(error))) from None
    if vector.shape != (size,) or vector.dtype != np.int64:
        raise ValueError(f"the masked vector is {vector.dtype} {vector.shape}, expected int64 ({size},)")
    return vector.view(np.uint64)
