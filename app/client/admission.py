"""Decides which messages a client works on, in one place, before any handler runs.

A handler that is not named here gives exact answers about its client alone. Only clients that were promised
no protection give such answers; a new handler is refused by all other clients until it is named.
"""

from collections.abc import Callable, Mapping

from flwr.app import Context, Message

from app.client.audit_answers import answers_of
from app.client.node import Node
from app.client.words import guarded, said
from app.data import client_id_of
from strategies.analytics.asking import ANALYSE
from strategies.analytics.scaling import ASK_SCALE
from strategies.analytics.target_scale import ASK_TARGETS
from strategies.core import wire
from strategies.core.errors import LetheError, SettingsRefused


def admit(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Pass on a message that the client may answer; a mod of the ClientApp.

    Raises
    ------
    LetheError
        If it may not, or fails, with the reason in one line, which `app.client.words` lets out. To the
        question who it is, the client replies with that reason.
    """
    describes = message.metadata.message_type == wire.DESCRIBE
    try:
        node = Node.agreed(message, context)
    except LetheError as error:  # On settings: no data were read
        if not describes:
            raise
        return _no_client(message, client_id_of(context.node_config), str(error))
    with guarded(node):
        try:
            check(node, message)
        except LetheError as error:
            if not describes:
                raise
            return _no_client(message, node.client_id, said(node, error))
        with node.present():
            return call_next(message, context)


def check(node: Node, message: Message) -> None:
    """Refuse a message that a client may not answer, or from a server whose project is another one.

    Raises
    ------
    LetheError
        With the reason.
    """
    node.check_code()
    if reason := refusal(node, message.metadata.message_type):
        raise SettingsRefused(reason)


def _no_client(message: Message, client_id: str, reason: str) -> Message:
    return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: 0}, config={wire.DETAIL: reason})


def refusal(node: Node, kind: str) -> str:
    """Return why a client does not answer a type of message; empty if it does."""
    return _RULES.get(kind, _exact)(node)


def _never(node: Node) -> str:
    return ""


def _exact(node: Node) -> str:
    """Return why a client gives no exact answers about itself alone; empty if it does."""
    privacy = node.config.privacy
    if node.is_secure:
        return "secure aggregation: this client answers for itself alone in no other message"
    if privacy.encryption != "none":
        return "encryption: this client answers in the clear for itself alone in no message"
    if privacy.on:
        return f'privacy.unit = "{privacy.unit}": this client answers without noise in no message'
    return ""


def _audit(node: Node) -> str:
    if answers_of(node.config) != "refuse":
        return ""
    return _exact(node) or "audit.answers: this client answers no audits"


def _decrypt(node: Node) -> str:
    return "secure aggregation: this client decrypts nothing" if node.is_secure else ""


def _analytics(node: Node) -> str:
    if node.config.privacy.on and not node.config.analytics.epsilon:
        return f"{_exact(node)}; analytics.epsilon is 0"
    return ""


def _scale(node: Node) -> str:
    return _exact(node) if node.config.privacy.on else ""  # Its sums are masked, and have no noise


_RULES: Mapping[str, Callable[[Node], str]] = {
    wire.DESCRIBE: _never,  # Leaves out what the client may not tell
    wire.HOLDINGS: _never,  # Likewise
    wire.TRAIN: _never,  # Masks, encrypts or adds noise as the run says
    wire.SECAGG_KEYS: _never,
    wire.SECAGG_SHARES: _never,
    wire.SECAGG_UNMASK: _never,
    ANALYSE: _analytics,
    ASK_TARGETS: _analytics,
    ASK_SCALE: _scale,
    wire.DECRYPT: _decrypt,
    wire.AUDIT: _audit,
}
