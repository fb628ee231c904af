"""app/client/admission.py: every handler of the ClientApp, under every promise that its client was given.

The handlers come from the app's own registry, so that a new one is held to the same: exact answers about a
single client leave it nowhere that anything was promised.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.app import Message

from app.client import admission
from app.client_app import app
from strategies.analytics.asking import ANALYSE
from strategies.analytics.scaling import ASK_SCALE
from strategies.analytics.target_scale import ASK_TARGETS
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.settings import Scalar
from tests.app.asking import context, handlers, message, run_config
from unlearning.audit.own_attack import ATTACK

PRIVATE = ("privacy.epsilon=8", "privacy.delta=1e-5", "privacy.accountant=rdp")
NO_LOG = "log.enabled=false"
PROTOCOL = {
    wire.DESCRIBE,
    wire.HOLDINGS,
    wire.TRAIN,
    wire.SECAGG_KEYS,
    wire.SECAGG_SHARES,
    wire.SECAGG_UNMASK,
    wire.DECRYPT,
}
"""Messages that protect what they carry by themselves."""
SUMS = {ANALYSE, ASK_SCALE, ASK_TARGETS}
"""Questions that are answered with masked vectors; where privacy is promised, with noise or not at all."""
KNOWN = PROTOCOL | SUMS | {wire.AUDIT}


@dataclass(frozen=True)
class Promise:
    """What a client was promised, and by whom."""

    run: tuple[str, ...] = ()
    node: Mapping[str, Scalar] = field(default_factory=dict)
    policy: str = ""
    brought: tuple[str, ...] | None = None
    says: str = ""
    everything: bool = False

    def node_config(self, folder: Path) -> dict[str, Scalar]:
        if not self.policy:
            return dict(self.node)
        (folder / "policy.toml").write_text(self.policy, encoding="utf-8")
        return {**self.node, "privacy.policy": str(folder / "policy.toml")}

    def answer(self, kind: str, folder: Path) -> Message:
        brought = None if self.brought is None else run_config(*self.brought)
        return app(message(kind, brought), context(run_config(*self.run), self.node_config(folder)))


PROMISES = {
    "run: example": Promise(("privacy.unit=example", *PRIVATE), says='privacy.unit = "example"'),
    "run: client-local": Promise(
        ("privacy.unit=client-local", *PRIVATE), says='privacy.unit = "client-local"'
    ),
    "run: client-central": Promise(
        ("privacy.unit=client-central", *PRIVATE), says="without noise in no message"
    ),
    "run: masks": Promise(("privacy.secure-aggregation=true", NO_LOG), says="secure aggregation: "),
    "run: ckks": Promise(("privacy.encryption=ckks", NO_LOG), says="encryption: "),
    "message: example": Promise(brought=("privacy.unit=example", *PRIVATE), says='privacy.unit = "example"'),
    "message: masks": Promise(
        brought=("privacy.secure-aggregation=true", NO_LOG), says="secure aggregation: "
    ),
    "message against run": Promise(
        ("privacy.unit=client-local", *PRIVATE),
        brought=(),
        says='privacy.unit: a message says "none", but this client was started for a run with "client-local"',
        everything=True,
    ),
    "policy: unit": Promise(
        policy='privacy.unit = "example"',
        says='privacy.unit: this node\'s policy says "example", the run "none"',
        everything=True,
    ),
    "policy: unit, another": Promise(
        ("privacy.unit=client-local", *PRIVATE),
        policy='[privacy]\nunit = "example"\n',
        says='privacy.unit: this node\'s policy says "example", the run "client-local"',
        everything=True,
    ),
    "policy: ε": Promise(
        node={"privacy-epsilon": 1.0},
        says='privacy.epsilon: this node\'s policy says 1.0, the run privacy.unit = "none"',
        everything=True,
    ),
    "policy: ε, central": Promise(
        ("privacy.unit=client-central", *PRIVATE),
        node={"privacy.epsilon": 1.0},
        says='this node\'s policy says 1.0, the run privacy.unit = "client-central"',
        everything=True,
    ),
    "policy: central, ε": Promise(
        ("privacy.unit=client-central", *PRIVATE),
        policy='privacy.unit = "client-central"\nprivacy.epsilon = 1',
        says="privacy.epsilon: this node's policy says 1.0, the run 8.0",
        everything=True,
    ),
    "policy: central, δ": Promise(
        ("privacy.unit=client-central", *PRIVATE),
        policy='privacy.unit = "client-central"\nprivacy.delta = 1e-7',
        says="privacy.delta: this node's policy says 1e-07, the run 1e-05",
        everything=True,
    ),
    "policy: masks": Promise(
        node={"privacy-secure-aggregation": True},
        says="privacy.secure-aggregation: this node's policy says true, the run false",
        everything=True,
    ),
    "policy: damaged": Promise(policy="privacy.unit = ", says="not a TOML file", everything=True),
}


@pytest.mark.parametrize("kind", handlers())
@pytest.mark.parametrize("promise", PROMISES)
def test_no_handler_answers_exactly_where_anything_is_promised(
    promise: str, kind: str, tmp_path: Path
) -> None:
    """What is in `KNOWN` is looked at by the tests below; all else is refused, and so is a new handler."""
    given = PROMISES[promise]
    if kind == wire.DESCRIBE or (kind in PROTOCOL and not given.everything):
        return
    if kind in SUMS and given.says.startswith(("secure", "encryption")):
        return
    with pytest.raises(LetheError) as refused:
        given.answer(kind, tmp_path)
    assert given.says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("promise", PROMISES)
def test_what_a_client_says_of_itself(promise: str, tmp_path: Path) -> None:
    """No labels anywhere; the number of examples at the example level and beside encryption alone."""
    given = PROMISES[promise]
    reply = given.answer(wire.DESCRIBE, tmp_path).content
    metrics, config = reply.metric_records[wire.METRICS], reply.config_records[wire.CONFIG]
    assert set(metrics) == {wire.NUM_EXAMPLES}
    if given.everything:
        assert (metrics[wire.NUM_EXAMPLES], given.says in str(config[wire.DETAIL])) == (0, True)
    elif "example" in promise or "ckks" in promise:
        assert wire.HIDDEN not in config
    else:
        assert (metrics[wire.NUM_EXAMPLES], config[wire.HIDDEN]) == (1, True)


def test_a_client_that_was_promised_nothing_tells_all_and_answers_all(tmp_path: Path) -> None:
    reply = Promise().answer(wire.DESCRIBE, tmp_path).content.metric_records[wire.METRICS]
    counts = reply[wire.LABEL_COUNTS]
    assert isinstance(counts, list)
    assert sum(counts) == reply[wire.NUM_EXAMPLES] == 36
    answered = Promise().answer(wire.AUDIT, tmp_path).content.metric_records[wire.METRICS]
    assert answered[wire.NUM_EXAMPLES] == 36
    refused = Promise().answer(wire.EVALUATE, tmp_path).content.config_records[wire.CONFIG]
    assert "holds out no example" in str(refused[wire.REFUSED])


def test_what_is_held_out_is_measured_and_nothing_else_is(tmp_path: Path) -> None:
    client = Promise(("data.local-test-share=0.25",))
    counts = [
        client.answer(kind, tmp_path).content.metric_records[wire.METRICS][wire.NUM_EXAMPLES]
        for kind in (wire.DESCRIBE, wire.AUDIT, wire.EVALUATE)
    ]
    assert counts[0] == counts[1] == 36 - counts[2]
    assert 0 < counts[2] < 18


def test_a_handler_that_nobody_named_is_refused() -> None:
    """All others of the registry are refused by name alone: those named here are a choice of this file."""
    assert set(admission._RULES) == KNOWN
    assert set(handlers()) >= KNOWN


LOCAL, EXAMPLE = ("privacy.unit=client-local", *PRIVATE), ("privacy.unit=example", *PRIVATE)
MASKS, CKKS = ("privacy.secure-aggregation=true", NO_LOG), ("privacy.encryption=ckks", NO_LOG)


@pytest.mark.parametrize(
    ("run", "policy", "answers"),
    [
        ((), "", "examples"),
        ((), 'audit.answers = "aggregate"', "aggregate"),
        ((), 'audit.answers = "refuse"', "refuse"),
        (("audit.answers=aggregate",), 'audit.answers = "examples"', "aggregate"),
        (("audit.answers=refuse",), "", "refuse"),
        (LOCAL, "", "refuse"),
        (MASKS, "", "refuse"),
        (CKKS, "", "refuse"),
        ((*LOCAL, "audit.answers=examples"), "", "examples"),
        ((*MASKS, "audit.answers=aggregate"), "", "aggregate"),
        ((*LOCAL, "audit.answers=examples"), "privacy.epsilon = 8", "refuse"),
        ((*LOCAL, "audit.answers=examples"), 'privacy.epsilon = 8\naudit.answers = "aggregate"', "aggregate"),
        ((*MASKS, "audit.answers=examples"), "privacy.secure-aggregation = true", "refuse"),
    ],
)
def test_audits_are_answered_as_the_stricter_of_run_and_node_says(
    run: tuple[str, ...], policy: str, answers: str, tmp_path: Path
) -> None:
    given = Promise(run, policy=policy)
    if answers == "refuse":
        with pytest.raises(LetheError):
            given.answer(wire.AUDIT, tmp_path)
        return
    content = given.answer(wire.AUDIT, tmp_path).content
    told = content.array_records.get(wire.ARRAYS)
    assert bool(told) == (answers == "examples")
    assert ("correct-retain" in content.metric_records[wire.METRICS]) == (answers == "aggregate")


@pytest.mark.parametrize("promise", [LOCAL, MASKS])
@pytest.mark.parametrize("answers", ["aggregate", "examples"])
def test_a_protected_client_attacks_none_of_its_examples_whatever_a_message_asks(
    promise: tuple[str, ...], answers: str, tmp_path: Path
) -> None:
    given = Promise((*promise, f"audit.answers={answers}"))
    asked = message(wire.AUDIT)
    asked.content[wire.CONFIG][ATTACK] = "a"  # type: ignore[index, assignment]
    with pytest.raises(LetheError, match=r"^audit\.shadows: clients of a protected run attack nothing"):
        app(asked, context(run_config(*given.run), given.node_config(tmp_path)))


def test_a_message_cannot_open_the_audit(tmp_path: Path) -> None:
    """The job's own config leaves it to the run; the message says that exact answers are fine."""
    given = Promise(brought=(*EXAMPLE, "audit.answers=examples"))
    with pytest.raises(LetheError, match=r'^privacy\.unit = "example": this client answers without noise'):
        given.answer(wire.AUDIT, tmp_path)


@pytest.mark.parametrize("promise", [name for name, given in PROMISES.items() if not given.everything])
def test_what_a_client_says_of_a_request(promise: str, tmp_path: Path) -> None:
    """Whether its data are those of the run, and nothing about them."""
    told = PROMISES[promise].answer(wire.HOLDINGS, tmp_path).content.config_records[wire.CONFIG]
    assert dict(told) == {wire.CLIENT_ID: "0", wire.DATA_STATE: "unknown"}
