"""A client with a model of its own: that model, the public data, and its test data."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message
from torch import nn

from app.client.node import Node
from app.config.settings import DataSettings
from app.data import OwnPublic, PublicData, load_server_data, own_path_of
from app.models.per_client import build_client_model, model_name_of
from strategies.client.own_models import ClientState
from strategies.client.work import ClientWork
from strategies.core import wire
from strategies.core.errors import BadInput, SettingsRefused
from strategies.core.examples import Examples, concatenated
from strategies.core.secret_random import Randomness
from strategies.core.settings import Scalar, split_list
from strategies.registry import lookup
from unlearning.audit.own_models import FOREIGN, answer_about_own_model


def work_of(node: Node, message: Message, context: Context) -> ClientWork:
    """Return all that a client half needs to answer a message of its own type.

    Raises
    ------
    BadInput
        If the client's data, model or public data do not fit the run's.
    """
    return ClientWork(
        build_model=partial(client_model, node),
        examples=node.training_examples(),
        public=public_data(node),
        test=partial(test_data, node),
        pooled=partial(_pooled, node),
        settings=node.config.strategy,
        seed=node.seed,
        client_id=node.client_id,
        state=context.state,
        config=node.message_config,
        arrays=message.content.array_records,
        randomness=Randomness.of(node.config.privacy.randomness),
        task=node.task,
    )


def check(node: Node) -> None:
    """Refuse, before the first round, a model or public data that do not fit the run's.

    Raises
    ------
    BadInput
        Naming the key, what was given and what is wanted.
    """
    client_model(node)
    public_data(node)
    strategy = node.config.strategy
    lookup(strategy.name).check_client(strategy, own_path(node) is not None)


def client_model(node: Node) -> nn.Module:
    """Return the client's own model with its initial weights, on the run's device."""
    name = model_name_of(node.config.strategy, node.node_config, node.client_id)
    return build_client_model(name, *node.sizes, node.seed, node.client_id).to(node.device)


def public_data(node: Node) -> PublicData | OwnPublic:
    """Return the public data, read from the node's own place if it names one.

    Raises
    ------
    BadInput
        If there are none, or they are not those of the server.
    """
    settings = _placed(node.work.data_settings, tuple(sorted(node.node_config.items())))
    public = node.work.shared_public(settings)
    if public is None:
        raise SettingsRefused(f"data.public: given 0, but {node.config.strategy.name} needs public data")
    expected = node.message_config.get(wire.PUBLIC_HASH)
    if expected is not None and public.hash != expected:
        raise SettingsRefused(
            f"data.public: this node's {len(public)} public examples are not those of the server "
            f"(SHA-256 {public.hash[:12]}…, expected {str(expected)[:12]}…)"
        )
    return public


def test_data(node: Node) -> Examples | None:
    """Return the client's test data: those of its own file, else those of the data set.

    None for a node with data of its own but without test data.
    """
    own = node.own_test
    if own is not None or own_path(node) is not None:
        return own
    test = (
        node.work.own_test()
        if node.work.has_data
        else _federation_test(node.work.data_settings, node.config.data_seed)
    )
    return None if test is None else node.terms.scaled(test)


def answer_audit(
    node: Node, message: Message, context: Context
) -> tuple[dict[str, float | int], ArrayRecord]:
    """Answer the audit's questions about the client's own model.

    Raises
    ------
    BadInput
        If the node has no model of the lineage, or would need data that lie elsewhere.
    """
    kept = lookup(node.config.strategy.name).kept

    def model_of(lineage: str) -> nn.Module:
        model = client_model(node)
        if not ClientState(context.state, lineage, kept).read_model(model):
            raise BadInput(f"client {node.client_id} has no model of '{lineage or 'the run'}' to be measured")
        return model

    foreign = split_list(str(node.message_config.get(FOREIGN, "")))
    examples = concatenated([node.examples(), *(of_client(node, i) for i in foreign)])
    return answer_about_own_model(message.content, examples, test_data(node), model_of, node.task)


def of_client(node: Node, client_id: str) -> Examples:
    """Return another client's training examples; only a simulation has them in one place."""
    if own_path(node) or not client_id.isdecimal():
        raise BadInput(
            f"the data of client {client_id} are not on this node: one client reads the data of another in a "
            "simulation only"
        )
    own = {"partition-id": int(client_id), wire.NUM_PARTITIONS: node.config.data.clients}
    return Node(node.config, own, {}).training_examples()


def own_path(node: Node) -> Path | None:
    """Return the path of a node's own data; None for a partition."""
    return own_path_of(node.config.data, node.node_config)


def _placed(data: DataSettings, node_items: tuple[tuple[str, Scalar], ...]) -> DataSettings:
    """Return the data settings with the node's own places of the public data."""
    own: Mapping[str, Scalar] = dict(node_items)
    given = {name: str(own[f"data.{name}"]) for name in ("public", "root") if f"data.{name}" in own}
    return data.model_copy(update=given)


@lru_cache(maxsize=2)
def _federation_test(data: DataSettings, seed: int) -> Examples | None:
    return load_server_data(data, seed).test


def _pooled(node: Node) -> Examples:
    """Return the examples of all clients that take part."""
    left_out = node.config.data.left_out
    everybody = map(str, range(node.config.data.clients))
    return concatenated(of_client(node, i) for i in everybody if i not in left_out)
