"""Of what run, message and node say, the stricter holds, key by key."""

from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from app.client.node import Node
from app.client.policy import Policy, agreed
from app.client_app import app
from app.config.run_config import RunConfig
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from tests.app.asking import context, message, run_config

LOOSE = ("privacy.epsilon=8", "privacy.delta=0.01", "privacy.randomness=seeded", "privacy.accountant=rdp")
EXAMPLE, LOCAL = ("privacy.unit=example", *LOOSE), ("privacy.unit=client-local", *LOOSE)
OPEN = "log.enabled=false"


def node(run: tuple[str, ...], brought: tuple[str, ...] | None = None, **own: Scalar) -> Node:
    named = {name.replace("_", "-"): value for name, value in own.items()}
    sent = message(wire.TRAIN, None if brought is None else run_config(*brought))
    return Node.of(sent, context(run_config(*run), named))


def held(found: Node) -> tuple[float, float, str]:
    """Return what the client's own account goes by."""
    privacy = found.privacy(RecordDict())
    assert privacy is not None
    return privacy.budget, privacy.settings.delta, privacy.settings.randomness


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, (8.0, 0.01, "seeded")),
        ({"privacy_epsilon": 1.0}, (1.0, 1e-5, "secret")),
        ({"privacy_epsilon": "1"}, (1.0, 1e-5, "secret")),
        ({"privacy_epsilon": 20.0}, (8.0, 1e-5, "secret")),
        ({"privacy_epsilon": 1.0, "privacy_delta": 0.1}, (1.0, 0.01, "secret")),
        (
            {"privacy_epsilon": 1.0, "privacy_delta": 1e-7, "privacy_randomness": "seeded"},
            (1.0, 1e-7, "seeded"),
        ),
        ({"privacy_delta": 1e-3}, (8.0, 1e-3, "seeded")),
        ({"privacy_randomness": "secret"}, (8.0, 0.01, "secret")),
        ({"privacy_unit": "example"}, (8.0, 0.01, "secret")),
        ({"privacy_epsilon": 0}, (0.0, 1e-5, "secret")),
    ],
)
def test_neither_delta_nor_seeds_get_past_a_node_s_epsilon(
    own: dict[str, Scalar], expected: tuple[float, float, str]
) -> None:
    """Beside a bound on ε of its own, a node's δ is the default 1e-5, and its noise secret."""
    assert held(node(EXAMPLE, **own)) == expected


def test_a_budget_of_its_own_in_the_run_is_bounded_too() -> None:
    assert held(node((*EXAMPLE, "privacy.budgets=0=100"), privacy_epsilon=1.0))[0] == 1.0


def test_the_noise_is_that_of_the_node_s_bounds() -> None:
    """At ε = 1 and δ = 1e-5 a client that is drawn from whole (rate 1, one step) needs σ > 3.7; at 8, 0.6.

    The run says seeded: with the same message twice, the noise would be the same.
    """
    flat = run_config(*LOCAL, "run.rounds=1")
    replies = [app(message(wire.TRAIN), context(flat, {"privacy-epsilon": 1.0})) for _ in range(2)]
    metrics = replies[0].content.metric_records[wire.METRICS]
    assert 0.99 < float(str(metrics[wire.EPSILON])) <= 1.0
    assert float(str(metrics[wire.NOISE_MULTIPLIER])) > 3.7
    assert not torch.equal(update(replies[0]), update(replies[1]))
    seeded = [app(message(wire.TRAIN), context(flat)) for _ in range(2)]
    assert torch.equal(update(seeded[0]), update(seeded[1]))
    assert float(str(seeded[0].content.metric_records[wire.METRICS][wire.NOISE_MULTIPLIER])) < 1.0


def update(reply: Message) -> torch.Tensor:
    state = {name: torch.tensor(a.numpy()) for name, a in reply.content.array_records[wire.ARRAYS].items()}
    return wire.Layout.of(state).flatten(state)


def test_a_client_level_reply_does_not_tell_how_much_there_is() -> None:
    """Neither the number of examples nor that of steps, which is the same over the batch size."""
    for unit, told in (("client-local", {wire.EPSILON, wire.NOISE_MULTIPLIER}), ("client-central", set())):
        central = () if unit == "client-local" else ("privacy.randomness=secret",)
        reply = app(message(wire.TRAIN), context(run_config(f"privacy.unit={unit}", *LOOSE, *central)))
        metrics = reply.content.metric_records[wire.METRICS]
        assert set(metrics) == {wire.NUM_EXAMPLES, *told}
        assert metrics[wire.NUM_EXAMPLES] == 1


@pytest.mark.parametrize(
    ("brought", "expected"),
    [
        (("privacy.epsilon=100",), (8.0, 0.01, "seeded")),
        (("privacy.epsilon=2", "privacy.delta=1e-6"), (2.0, 1e-6, "seeded")),
        (("privacy.delta=0.2",), (8.0, 0.01, "seeded")),
        (("privacy.randomness=secret",), (8.0, 0.01, "secret")),
    ],
)
def test_a_message_makes_a_run_stricter_and_not_weaker(
    brought: tuple[str, ...], expected: tuple[float, float, str]
) -> None:
    assert held(node(EXAMPLE, (*EXAMPLE, *brought))) == expected


@pytest.mark.parametrize(
    ("run", "brought", "line"),
    [
        (EXAMPLE, (), 'privacy.unit: a message says "none", but .* with "example"'),
        (EXAMPLE, LOCAL, 'privacy.unit: a message says "client-local", but .* with "example"'),
        (EXAMPLE, (*EXAMPLE, "privacy.noise-multiplier=0.1"), "privacy.noise-multiplier: a message says 0.1"),
        (EXAMPLE, (*EXAMPLE, "privacy.budgets=0=99"), 'privacy.budgets: a message says "0=99"'),
        (EXAMPLE, (*EXAMPLE, "privacy.ledger=/tmp"), "privacy.ledger: a message says"),
        (
            ("privacy.encryption=ckks", OPEN),
            (OPEN,),
            'privacy.encryption: a message says "none", but .* with "ckks"',
        ),
        (
            ("run.workflow=analytics", "analytics.epsilon=1.0", "data.clients=3"),
            ("run.workflow=analytics", "data.clients=3"),
            "analytics.epsilon: a message says 0.0, but .* with 1.0",
        ),
        (
            ("run.workflow=analytics", "data.clients=3"),
            ("data.clients=3",),
            'run.workflow: a message says "train", but .* with "analytics"',
        ),
    ],
)
def test_a_message_that_would_take_a_protection_away_is_refused(
    run: tuple[str, ...], brought: tuple[str, ...], line: str
) -> None:
    with pytest.raises(BadInput, match=rf"^{line}.*nothing is answered$"):
        node(run, brought)


@pytest.mark.parametrize("named", ["data.path=/etc/patients.npz", "data.name=npz:/etc/patients.npz"])
def test_a_server_names_no_file_of_a_node_with_a_policy(named: str) -> None:
    """Unless the node names its data; what is built in can be named by anybody."""
    with pytest.raises(BadInput, match=r"data.path: the run names .*/etc/patients.npz, but a node"):
        node((*EXAMPLE, named), privacy_unit="example")
    with pytest.raises(BadInput, match=r"data.public: the run names npz:/etc/p.npz, but a node"):
        node((*EXAMPLE, "data.public=npz:/etc/p.npz"), privacy_unit="example")
    assert node((*EXAMPLE, named), privacy_unit="example", data_path="own.npz").config.privacy.on
    assert node((*EXAMPLE, named)).config.privacy.on
    assert node(EXAMPLE, privacy_unit="example").config.privacy.on


def test_nor_a_folder_of_clients() -> None:
    """A node that names the folder, or a file, itself may take part."""
    named = "data.folder-of-clients=/etc/clients"
    with pytest.raises(BadInput, match=r"data.folder-of-clients: the run names /etc/clients, but a node"):
        node((*EXAMPLE, named), privacy_unit="example")
    assert node((*EXAMPLE, named), privacy_unit="example", data_path="own.npz").config.privacy.on
    own = {"privacy_unit": "example", "data_folder_of_clients": "mine"}
    assert node((*EXAMPLE, named), **own).config.privacy.on


def test_masks_stay_on_whatever_a_message_says() -> None:
    assert node(("privacy.secure-aggregation=true", OPEN), (OPEN,)).is_secure


def test_a_message_of_a_finished_private_run_stands_above_a_job_that_says_nothing_of_privacy() -> None:
    """That is how `flwr run` forgets from a private run; the job's own config has the defaults."""
    assert held(node((), EXAMPLE)) == (8.0, 0.01, "seeded")


@pytest.mark.parametrize("damaged", ["[]", "{", "[" * 100_000])
def test_a_config_that_a_message_brings_damaged(damaged: str) -> None:
    sent = message(wire.TRAIN, None, run_config=damaged)
    with pytest.raises(BadInput, match="run-config: expected a JSON object"):
        Node.of(sent, context(run_config()))


def test_a_file_says_what_the_node_allows(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        '[privacy]\nunit = "example"\nepsilon = 2\ndelta = 1e-6\nledger = "/var/lib/lethe"\n'
        f'[audit]\nanswers = "aggregate"\n[executor]\nbundles = ["{"0a" * 32}"]\n',
        encoding="utf-8",
    )
    expected = Policy(
        unit="example",
        epsilon=2.0,
        delta=1e-6,
        ledger="/var/lib/lethe",
        answers="aggregate",
        bundles=("0a" * 32,),
    )
    assert Policy.read(path) == Policy.of({"privacy-policy": str(path)}) == expected
    found = node(EXAMPLE, privacy_policy=str(path))
    assert found.config.privacy.ledger == "/var/lib/lethe"
    assert found.config.audit.answers == "refuse"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('privacy.unit = "none"', 'privacy.unit: given "none", allowed one of example, client-local'),
        ("privacy.epsilon = -1", "privacy.epsilon: given -1, allowed a number >= 0"),
        ('privacy.epsilon = "1"', 'privacy.epsilon: given "1", allowed a number >= 0'),
        ("privacy.delta = 1", "privacy.delta: given 1, allowed a number > 0 and < 1"),
        ('privacy.secure-aggregation = "yes"', "privacy.secure-aggregation: given .* allowed true or false"),
        ('audit.answers = "auto"', "audit.answers: given .*, allowed one of refuse, aggregate, examples"),
        ('executor.bundles = ["ab"]', "executor.bundles: given .*, allowed a list of SHA-256 sums"),
        ("privacy.budget = 1", "unknown key 'privacy.budget'; known keys: privacy.unit"),
        ("privacy.unit = ", "not a TOML file"),
    ],
)
def test_a_policy_that_says_nothing_clear(text: str, line: str, tmp_path: Path) -> None:
    """It is not passed over: the client answers nothing."""
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=line):
        node(EXAMPLE, privacy_policy=str(path))


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        node((), privacy_policy=str(tmp_path / "none.toml"))


def test_a_key_in_the_file_and_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("privacy.epsilon = 1", encoding="utf-8")
    with pytest.raises(BadInput, match=r"^privacy\.epsilon: given in .* and in the node's config"):
        node(EXAMPLE, privacy_policy=str(path), privacy_epsilon=2.0)


def test_a_damaged_value_of_the_node_s_config() -> None:
    with pytest.raises(BadInput, match=r'^the node\'s config: privacy\.epsilon: given "much", allowed'):
        node(EXAMPLE, privacy_epsilon="much")


def test_a_node_without_a_policy_believes_the_run() -> None:
    assert Policy.of({"partition-id": 0}) == Policy()
    made = Context(1, 1, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {})
    assert not Node.of(message(wire.TRAIN), made).config.privacy.on


def test_a_process_keeps_what_it_agreed_with_many_nodes() -> None:
    """Bounded by bytes: a round of a thousand clients does not push out the first of them."""
    own, run = Policy(secure_aggregation=False, delta=1e-6), RunConfig()
    first = [agreed(own, run, str(i)) for i in range(1000)]
    assert all(agreed(own, run, str(i)) is joined for i, joined in enumerate(first))
