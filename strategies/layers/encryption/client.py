"""The client's half: encrypt the weighted update, and decrypt the sum for the server.

The client sends Enc(n_k δ_k) with δ_k its update and n_k its number of examples, which stays in the clear;
what else it could report, such as its loss, it keeps to itself. Asked for it, it decrypts the sum of a round
and answers with the mean Σ n_k δ_k / Σ n_k, with noise (see `strategies.layers.encryption.ckks`).
"""

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.layers.encryption.ckks import Secret
from strategies.server.aggregation import MAX_ABS_UPDATE

MAX_WEIGHT = 2**26
"""Largest sum of the numbers of examples of a round: with it no sum leaves the ciphertexts' range."""


def encrypted_record(secret: Secret, delta: Tensor, num_examples: int) -> ConfigRecord:
    """Return an update encrypted for the wire.

    Parameters
    ----------
    delta
        New minus old parameters, shape [P].
    num_examples
        Its weight, at least 1.

    Raises
    ------
    ValueError
        If the update is not finite, or so large that the client must have diverged: the server could not see
        it.
    """
    if not bool((delta.abs() <= MAX_ABS_UPDATE).all()):
        raise ValueError(f"an entry of the update is not within ±{MAX_ABS_UPDATE:g}: the client diverged")
    payload = secret.encrypt(delta.double() * num_examples)
    return ConfigRecord({wire.PAYLOAD: payload, wire.KEY_ID: secret.key_id})


def encrypted_reply(
    message: Message, client_id: str, secret: Secret, delta: Tensor, num_examples: int
) -> Message:
    """Answer a message to train with the encrypted update; a refusal where it cannot be sent."""
    try:
        record = encrypted_record(secret, delta, num_examples)
    except ValueError as reason:
        return wire.reply_to(message, client_id, {}, config={wire.REFUSED: str(reason)})
    reply = wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: num_examples})
    reply.content[wire.ENCRYPTED] = record
    return reply


def decrypted_reply(message: Message, client_id: str, secret: Secret) -> Message:
    """Decrypt a sum of updates and answer with the mean."""
    try:
        mean = _mean(message.content, secret)
    except ValueError as reason:
        return wire.reply_to(message, client_id, {}, config={wire.REFUSED: str(reason)})
    return wire.reply_to(message, client_id, {}, wire.record_of({wire.MEAN: mean}))


def _mean(content: RecordDict, secret: Secret) -> Tensor:
    """Return the mean of a question, shape [P], float32."""
    asked = content.config_records.get(wire.ENCRYPTED, ConfigRecord())
    payload, size, weight = (asked.get(key) for key in (wire.PAYLOAD, wire.SIZE, wire.WEIGHT))
    if not (isinstance(payload, list) and isinstance(size, int) and isinstance(weight, int)):
        raise ValueError(f"expected {wire.PAYLOAD}, {wire.SIZE} and {wire.WEIGHT} of a sum")
    if not 1 <= weight <= MAX_WEIGHT or not 0 <= size <= wire.MAX_ENTRIES:
        raise ValueError(f"{wire.WEIGHT} or {wire.SIZE} is out of range: {weight}, {size}")
    if asked.get(wire.KEY_ID) != secret.key_id:
        raise ValueError("the sum was encrypted with another key than this client's")
    total = secret.decrypt([bytes(part) for part in payload if isinstance(part, bytes)], size)
    return (total / weight).to(torch.float32)
