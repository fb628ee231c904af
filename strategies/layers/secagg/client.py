"""Secure aggregation, the client's half: share the masks' seeds, mask, and help to unmask the sum.

Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth, "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017 (eprint 2017/281), Figure 4, for a server that follows the
protocol but is curious:

0. *keys*: a client makes two X25519 key pairs and sends the public ones.
1. *shares*: it shares its mask key and the seed of its own mask with all others (Shamir, t of n), encrypted
   to each (AES-256-GCM); the server relays what it cannot read.
2. *masked vector*: it adds a mask of its own and one for each other client that shared (see
   `strategies.layers.secagg.masking`), to integers modulo 2^64.
3. *unmasking*: of each survivor it opens its share of the seed, of each that was lost its share of the key;
   never both of one client, as the two together uncover its vector.

Differs from the paper: clients commit to the shares that they deal and to their seed (SHA-256), so that who
deals or opens a wrong share is known; keys are not signed, and there is no consistency check
of who survived, which the paper has against servers that do not follow the protocol. What a client refuses is
checked all the same: both shares of one client, a second opening, a second vector under one mask, a threshold
below its own. Neutral: where nobody is lost or not, the sum is that of the plain vectors, to the bit.

A client may be another process for every message: what it must remember lies in its ``context.state``, until
it has opened its shares.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from strategies.core import wire
from strategies.layers.secagg import protocol
from strategies.layers.secagg.masking import (
    KEY_BYTES,
    Vector,
    add_mask,
    add_pair_masks,
    agreed_key,
    public_key,
)
from strategies.layers.secagg.shamir import SHARE_BYTES, split

STATE = "secagg"
"""Name of the record in the client's state."""
_CIPHER, _MASK, _SEED, _STAGE, _RECEIVED = "cipher-private", "mask-private", "seed", "stage", "held"
_KEYS, _SHARED, _MASKED = "keys", "shared", "masked"  # Stages

Entries = dict[str, wire.ConfigValue]


class Refused(Exception):
    """The server's request would reveal a client's vector, or is out of order."""


@final
@dataclass(frozen=True)
class SecureClient:
    """A client while it answers one message of the protocol.

    Parameters
    ----------
    state
        The client's ``context.state``, changed in place.
    threshold
        Share of the clients that must stay, as the client itself knows it.
    """

    config: Mapping[str, Any]
    state: RecordDict
    threshold: float

    def keys(self) -> Entries:
        """Answer with public keys, and forget any earlier sum."""
        own = {_CIPHER: secrets.token_bytes(KEY_BYTES), _MASK: secrets.token_bytes(KEY_BYTES)}
        self.state[STATE] = ConfigRecord({protocol.SESSION: self._session, _STAGE: _KEYS, **own})
        return {protocol.CIPHER_KEY: public_key(own[_CIPHER]), protocol.MASK_KEY: public_key(own[_MASK])}

    def shares(self) -> Entries:
        """Answer with a share of the mask key and of the seed for each client, encrypted.

        Raises
        ------
        Refused
            If fewer need stay than the client asks for, or a key is none.
        """
        memory = self._memory(_KEYS)
        numbers, own, threshold = self._checked_members(memory)
        seed = secrets.token_bytes(KEY_BYTES)
        dealt = zip(
            numbers,
            split(_bytes(memory, _MASK), threshold, numbers, secrets.randbelow).values(),
            split(seed, threshold, numbers, secrets.randbelow).values(),
            strict=True,
        )
        shares = {number: (key_share, seed_share) for number, key_share, seed_share in dealt}
        sealed = [b"" if n == own else self._seal(memory, own, n, b"".join(shares[n])) for n in numbers]
        memory.update({_SEED: seed, _STAGE: _SHARED, _RECEIVED: [b"".join(shares[own])]})
        return {
            protocol.SHARES: sealed,
            protocol.COMMITMENTS: [protocol.commitments(*shares[n]) for n in numbers],
            protocol.SEED_HASH: protocol.commitment(seed),
        }

    def check_due(self) -> None:
        """Check, before any work on a vector, that it would be masked afterwards.

        Raises
        ------
        Refused
            If there is no sum that waits for it.
        """
        self._memory(_SHARED)

    def sharers(self) -> int:
        """Return the smallest number of clients in a sum."""
        return int(str(self._memory(_SHARED)[protocol.THRESHOLD]))

    def masked(self, vector: Vector) -> tuple[ArrayRecord, Entries]:
        """Return the masked form of a vector, and what goes with it.

        Parameters
        ----------
        vector
            Shape [size]; it is masked in place.

        Raises
        ------
        Refused
            If fewer have shared than must stay to the end, or a vector was masked before.
        """
        memory = self._memory(_SHARED)
        numbers, own = self._participants(memory)
        received, complaints = self._received(memory, numbers, own)
        seeds = {n: self._pair_key(memory, n, masks=True) for n in numbers if n != own}
        add_mask(vector, _bytes(memory, _SEED), 1)
        add_pair_masks(vector, own, seeds)
        memory.update({_STAGE: _MASKED, _RECEIVED: received, protocol.NUMBERS: numbers})
        record = ArrayRecord({wire.MASKED: Array(vector.view(np.int64))})
        return record, {protocol.COMPLAINTS: complaints}

    def unmask(self) -> Entries:
        """Open one share of each client: of a survivor's seed, of a lost one's key; then forget all.

        Raises
        ------
        Refused
            If both shares of a client are asked for, too few have survived, or shares were opened before.
        """
        memory = self._memory(_MASKED)
        survivors = _numbers(self.config, protocol.SURVIVORS)
        dropped = _numbers(self.config, protocol.DROPPED)
        if both := sorted(set(survivors) & set(dropped)):
            raise Refused(f"it is asked for both shares of client number {both[0]}")
        members = _numbers(memory, protocol.NUMBERS)
        if sorted(survivors + dropped) != members:
            raise Refused("it is asked about others than those who took part in the sum")
        threshold = int(str(memory[protocol.THRESHOLD]))
        if len(survivors) < threshold:
            raise Refused(f"{len(survivors)} clients are left, but {threshold} must be")
        kept: Any = memory[_RECEIVED]
        shares: dict[int, bytes] = dict(zip(members, kept, strict=True))
        opened = [shares[n][SHARE_BYTES:] for n in survivors] + [shares[n][:SHARE_BYTES] for n in dropped]
        del self.state[STATE]
        return {protocol.OPENED: opened}

    @property
    def _session(self) -> bytes:
        try:
            return protocol.byte_string(self.config, protocol.SESSION, protocol.SESSION_BYTES)
        except ValueError as error:
            raise Refused(f"the message belongs to no secure sum: {error}") from None

    def _memory(self, stage: str) -> ConfigRecord:
        """Return the client's record of the message's sum; Refused unless the sum is at this stage."""
        memory = self.state.config_records.get(STATE)
        if memory is None or memory[protocol.SESSION] != self._session:
            raise Refused("it knows nothing of this secure sum: it was restarted, or has opened its shares")
        if memory[_STAGE] != stage:
            raise Refused(
                f"this step of the secure sum was done before, or is not due: now {memory[_STAGE]!r}"
            )
        return memory

    def _checked_members(self, memory: ConfigRecord) -> tuple[list[int], int, int]:
        """Check and record who takes part; return the members, the client's own number and the threshold."""
        numbers = _numbers(self.config, protocol.NUMBERS)
        own, threshold = (int(str(self.config.get(key, 0))) for key in (protocol.OWN, protocol.THRESHOLD))
        least = protocol.needed(self.threshold, len(numbers))
        if not least <= threshold <= len(numbers) or own not in numbers:
            raise Refused(f"{threshold} of {len(numbers)} clients must stay, but this one asks for {least}")
        keys: Entries = {}
        for key, private in ((protocol.CIPHER_KEYS, _CIPHER), (protocol.MASK_KEYS, _MASK)):
            listed = _byte_strings(self.config, key, len(numbers), KEY_BYTES)
            if len(set(listed)) < len(listed) or listed[numbers.index(own)] != public_key(
                _bytes(memory, private)
            ):
                raise Refused(f"'{key}' holds a key twice, or not the client's own")
            keys[key] = listed
        memory.update({protocol.NUMBERS: numbers, protocol.OWN: own, protocol.THRESHOLD: threshold, **keys})
        return numbers, own, threshold

    def _participants(self, memory: ConfigRecord) -> tuple[list[int], int]:
        numbers, own = _numbers(self.config, protocol.NUMBERS), int(str(memory[protocol.OWN]))
        threshold = int(str(memory[protocol.THRESHOLD]))
        if len(numbers) < threshold:
            raise Refused(f"{len(numbers)} clients have shared, but {threshold} must stay")
        if own not in numbers or not set(numbers) <= set(_numbers(memory, protocol.NUMBERS)):
            raise Refused("others take part than those whose keys it knows")
        return numbers, own

    def _pair_key(self, memory: ConfigRecord, other: int, *, masks: bool) -> bytes:
        """Return the key for the masks, or for the messages, of this client and another."""
        private = _bytes(memory, _MASK if masks else _CIPHER)
        keys: Any = memory[protocol.MASK_KEYS if masks else protocol.CIPHER_KEYS]
        known = dict(zip(_numbers(memory, protocol.NUMBERS), keys, strict=True))
        context = protocol.mask_context if masks else protocol.cipher_context
        try:
            return agreed_key(private, known[other], context(self._session))
        except ValueError:
            raise Refused(f"the key of client number {other} is none") from None

    def _seal(self, memory: ConfigRecord, own: int, other: int, shares: bytes) -> bytes:
        nonce = secrets.token_bytes(protocol.NONCE_BYTES)
        bound = protocol.associated(self._session, own, other)
        return nonce + AESGCM(self._pair_key(memory, other, masks=False)).encrypt(nonce, shares, bound)

    def _received(
        self, memory: ConfigRecord, numbers: Sequence[int], own: int
    ) -> tuple[list[bytes], list[int]]:
        """Return the shares received from each client, and the clients whose shares are wrong."""
        count = len(numbers)
        kept: Any = memory[_RECEIVED]
        sealed = _byte_strings(self.config, protocol.SHARES, count, 0, protocol.SEALED_BYTES)
        promised = _byte_strings(self.config, protocol.COMMITMENTS, count, protocol.COMMITMENTS_BYTES)
        received: list[bytes] = []
        complaints: list[int] = []
        for number, box, promise in zip(numbers, sealed, promised, strict=True):
            shares: Any = kept[0] if number == own else self._open(memory, number, own, box)
            if protocol.commitments(shares[:SHARE_BYTES], shares[SHARE_BYTES:]) != promise:
                complaints.append(number)
                shares = b""
            received.append(shares)
        return received, complaints

    def _open(self, memory: ConfigRecord, sender: int, own: int, box: bytes) -> bytes:
        """Return a client's decrypted shares; empty if they are not what it sent."""
        nonce, sealed = box[: protocol.NONCE_BYTES], box[protocol.NONCE_BYTES :]
        bound = protocol.associated(self._session, sender, own)
        try:
            return AESGCM(self._pair_key(memory, sender, masks=False)).decrypt(nonce, sealed, bound)
        except (InvalidTag, ValueError):
            return b""


def _numbers(config: Mapping[str, Any], key: str) -> list[int]:
    try:
        return protocol.numbers(config, key)
    except ValueError as error:
        raise Refused(str(error)) from None


def _byte_strings(config: Mapping[str, Any], key: str, count: int, *sizes: int) -> list[bytes]:
    try:
        return protocol.byte_strings(config, key, count, frozenset(sizes))
    except ValueError as error:
        raise Refused(str(error)) from None


def _bytes(memory: ConfigRecord, key: str) -> bytes:
    value = memory[key]
    return value if isinstance(value, bytes) else b""
