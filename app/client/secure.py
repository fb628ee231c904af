"""A client's side of secure aggregation: its answers to the protocol's messages."""

from collections.abc import Callable

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from app.client.node import Node
from app.config.run_config import RunConfig
from strategies.analytics.asking import ANALYSE, answer_analytics as masked_answer
from strategies.analytics.scaling import ASK_SCALE, answer_scale as masked_scale, check_sharers
from strategies.analytics.target_scale import (
    ASK_TARGETS,
    TargetSums,
    answer_target_scale as masked_targets,
)
from strategies.client.training import LocalResult
from strategies.core import wire
from strategies.layers.privacy.client import BudgetSpent, ClientPrivacy, pay_answer
from strategies.layers.privacy.noise import clipped
from strategies.layers.secagg.client import Entries, Refused, SecureClient
from strategies.layers.secagg.training import client_vector

_SENT_IN_CLEAR = (wire.EPSILON, wire.NOISE_MULTIPLIER)
"""Metrics that are sent in the clear beside a masked vector."""
_MOST_BITS = 52


def half_of(node: Node, context: Context) -> SecureClient:
    """Return the client's half of the protocol for one message."""
    return SecureClient(node.message_config, context.state, node.config.privacy.threshold)


def register(app: ClientApp) -> None:
    """Add the protocol's messages to a ClientApp."""
    for message_type, answer in (
        (wire.SECAGG_KEYS, SecureClient.keys),
        (wire.SECAGG_SHARES, SecureClient.shares),
        (wire.SECAGG_UNMASK, SecureClient.unmask),
    ):
        app.query(message_type.removeprefix("query."))(_handler(answer))
    app.query(ANALYSE.removeprefix("query."))(answer_analytics)
    app.query(ASK_SCALE.removeprefix("query."))(answer_scale)
    app.query(ASK_TARGETS.removeprefix("query."))(answer_target_scale)


def _handler(answer: Callable[[SecureClient], Entries]) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        node = Node.of(message, context)
        try:
            entries = answer(half_of(node, context))
        except Refused as reason:
            entries = {wire.REFUSED: str(reason)}
        return wire.reply_to(message, node.client_id, {}, config=entries)

    return handle


def _pay(node: Node, privacy: ClientPrivacy) -> None:
    """Pay for a private client's answer; refuse if its noise is for less than the client protects."""
    epsilon = node.config.analytics.epsilon
    if not epsilon or privacy.settings.unit != "example":
        raise Refused("it is private, and answers with noise for its own unit alone")
    pay_answer(node.client_id, privacy, epsilon)


def answer_analytics(message: Message, context: Context) -> Message:
    """Answer a question of federated analytics with a masked vector."""
    node = Node.of(message, context)
    half, privacy = half_of(node, context), node.privacy(context.state)
    try:
        half.check_due()
        if privacy is not None:
            _pay(node, privacy)
        arrays, entries = masked_answer(half, node.config.analytics, node.num_groups, node.training_examples)
    except (BudgetSpent, Refused) as reason:
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: str(reason)})
    return wire.reply_to(message, node.client_id, {}, arrays, entries)


def answer_scale(message: Message, context: Context) -> Message:
    """Answer with the masked sums of the columns of the client's training data."""
    node = Node.of(message, context)
    half, config = half_of(node, context), node.config
    try:
        if config.data.scale != "federated" or config.privacy.on:
            raise Refused("it gives no sums of its columns without noise (data.scale, privacy.unit)")
        least, limit = config.analytics.min_clients, config.data.scale_range
        arrays, entries = masked_scale(half, least, limit, node.training_examples)
    except Refused as reason:
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: str(reason)})
    return wire.reply_to(message, node.client_id, {}, arrays, entries)


def answer_target_scale(message: Message, context: Context) -> Message:
    """Answer with the masked sums of the targets of the client's training data."""
    node = Node.of(message, context)
    half, config, privacy = half_of(node, context), node.config, node.privacy(context.state)
    try:
        if config.task.scale_from != "federated":
            raise Refused("it gives no sums of its targets (task.scale-from)")
        least = config.analytics.min_clients
        check_sharers(half, least)
        if privacy is not None:
            _pay(node, privacy)
        sums = target_sums(config)
        arrays, entries = masked_targets(half, least, sums, lambda: node.training_examples().targets())
    except (BudgetSpent, Refused) as reason:
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: str(reason)})
    return wire.reply_to(message, node.client_id, {}, arrays, entries)


def target_sums(config: RunConfig) -> TargetSums:
    """Return what is summed of targets, and with which noise."""
    return TargetSums(config.task.outputs, config.task.scale_range, config.analytics.epsilon)


def train_securely(
    node: Node, message: Message, context: Context, train: Callable[[], LocalResult | None]
) -> Message:
    """Train, and answer with the masked update; a client that refuses says why.

    `train` returns the result, or None if the client has no example left: it then adds zero.
    """
    try:
        bits = node.message_config.get(wire.SUM_BITS)
        if not isinstance(bits, int) or not 0 <= bits <= _MOST_BITS:
            raise Refused("the message belongs to no secure sum, and this client takes part in no other")
        half = half_of(node, context)
        half.check_due()
        arrays = message.content.array_records[wire.ARRAYS]
        result = train()
        if result is None:
            vector, metrics = client_vector(torch.zeros(wire.layout_of(arrays).size), 0, 0.0, bits), {}
        else:
            delta = wire.update_since(arrays, result.model.state_dict())
            vector = client_vector(_bounded(node, delta), _weight(node, result), _loss(node, result), bits)
            metrics = {name: result.metrics[name] for name in _SENT_IN_CLEAR if name in result.metrics}
        arrays, entries = half.masked(vector)
    except Refused as reason:
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: str(reason)})
    return wire.reply_to(message, node.client_id, metrics, arrays, entries)


def _bounded(node: Node, delta: Tensor) -> Tensor:
    """Return the update, clipped if only the sum gets noise: the server cannot clip what it cannot see."""
    settings = node.config.privacy
    return clipped(delta, settings.clip_norm) if settings.unit == "client-central" else delta


def _weight(node: Node, result: LocalResult) -> int:
    most = node.config.privacy.max_weight
    if result.num_examples > most:
        raise Refused(f"it has more examples: privacy.max-examples allows {most}")
    return result.num_examples


def _loss(node: Node, result: LocalResult) -> float:
    return 0.0 if node.config.privacy.on else float(result.metrics.get(wire.TRAIN_LOSS, 0.0))
