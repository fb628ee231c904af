"""app/client/words.py: an error quotes data, and no byte of it reaches the server of a protected run."""

import pytest
from flwr.app import Error

from app.client.node import Node
from app.client_app import app
from app.messages import codec
from app.simulation.client import Clients, config_of
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError, SettingsRefused, withheld
from tests.app.asking import handlers, message, run_config

SECRET = "patient 4711, aged 92"
PRIVATE = ("privacy.epsilon=8", "privacy.delta=1e-5", "privacy.accountant=rdp")
PROMISES = {
    "example": ("privacy.unit=example", *PRIVATE),
    "client-local": ("privacy.unit=client-local", *PRIVATE),
    "client-central": ("privacy.unit=client-central", *PRIVATE),
    "masks": ("privacy.secure-aggregation=true", "log.enabled=false"),
    "ckks": ("privacy.encryption=ckks", "log.enabled=false"),
}
WORKS = ("examples", "training_examples", "model", "data_state", "secret", "check_model")


class Diagnosis(ValueError):
    """An exception of the user's own."""


def answered(kind: str, *overrides: str) -> bytes:
    """Return all that a client sends to a server: the record of its answer, or its error."""
    own = config_of({"partition-id": 0, "num-partitions": 2})
    content, state = Clients(app, config_of(run_config(*overrides)), [own]).answer(message(kind), b"")
    assert SECRET.encode() not in state
    return content.reason.encode() if isinstance(content, Error) else codec.dump(content)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let everything that reads a client's data, or uses its model, fail with a text that quotes them."""

    def fail(*_: object, **__: object) -> None:
        raise request.param(SECRET)

    for name in WORKS:
        monkeypatch.setattr(Node, name, fail)


@pytest.mark.parametrize("planted", [Diagnosis, BadInput, SystemExit], indirect=True)
@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.usefixtures("planted")
def test_no_answer_to_any_message_quotes_an_exception_where_anything_is_promised(
    promise: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all handlers; the text is in the client's own log."""
    overrides = (*PROMISES[promise], "audit.answers=examples")

    answers = {kind: answered(kind, *overrides) for kind in handlers()}

    assert not [kind for kind, sent in answers.items() if SECRET.encode() in sent or b"4711" in sent]
    assert SECRET in capsys.readouterr().err


@pytest.mark.parametrize("planted", [Diagnosis], indirect=True)
@pytest.mark.usefixtures("planted")
def test_where_nothing_is_promised_the_server_reads_the_reason() -> None:
    """What the test above would see if nothing kept it back."""
    assert SECRET.encode() in answered(wire.TRAIN)


def test_a_failure_in_a_later_round_is_named_by_its_class_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the nearest class of Python's: the name of the user's own may be made of data, too."""

    def fail(*_: object, **__: object) -> None:
        raise Diagnosis(SECRET)

    monkeypatch.setattr("app.client_app.train_privately", fail)

    sent = answered(wire.TRAIN, *PROMISES["example"]).decode()

    assert "ValueError; the text stays in the log of the client, whose data are protected" in sent
    assert "Diagnosis" not in sent


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Diagnosis(SECRET), "ValueError"),
        (SystemExit(SECRET), "SystemExit"),
        (ExceptionGroup(SECRET, [Diagnosis(SECRET)]), "ExceptionGroup"),
        (LetheError(SECRET), "LetheError"),
        (BadInput(SECRET), "BadInput"),
    ],
)
def test_a_class_is_one_of_a_fixed_list(error: BaseException, said: str) -> None:
    assert withheld(error).startswith(f"{said}; ")
    assert SECRET not in withheld(error)


def test_what_is_said_of_each_error_of_the_projects_own() -> None:
    assert SettingsRefused("run.seed: 3").unnamed == "run.seed: 3"
    assert BadInput(SECRET).unnamed == withheld(BadInput(SECRET))
