"""The layer: the mean of encrypted updates, wrong keys, lying decryptors, what the server sees."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.layers.encryption.ckks import Secret, new_secret
from strategies.layers.encryption.client import decrypted_reply, encrypted_reply
from strategies.layers.privacy.settings import PrivacySettings
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, flat_record, raises

ENCRYPTED = PrivacySettings(encryption="ckks")
KEY = Secret(new_secret())


@dataclass
class Client:
    """A client that adds a constant, encrypts it, and decrypts sums."""

    client_id: str
    num_examples: int
    value: float
    secret: Secret = KEY

    def __call__(self, message: Message) -> Message | None:
        """Answer as the ClientApp does."""
        kind = message.metadata.message_type
        if kind == wire.DESCRIBE:
            return wire.reply_to(message, self.client_id, {wire.NUM_EXAMPLES: self.num_examples})
        if kind == wire.DECRYPT:
            return self.decrypt(message)
        old = wire.state_of(message.content.array_records[wire.ARRAYS])["w"]
        delta = torch.full_like(old, self.value)
        return encrypted_reply(message, self.client_id, self.secret, delta, self.num_examples)

    def decrypt(self, message: Message) -> Message | None:
        """Answer with the mean."""
        return decrypted_reply(message, self.client_id, self.secret)


class Liar(Client):
    """Says that the mean is something else."""

    def decrypt(self, message: Message) -> Message | None:
        """Answer with ones."""
        reply = decrypted_reply(message, self.client_id, self.secret)
        mean = wire.state_of(reply.content.array_records[wire.ARRAYS])[wire.MEAN]
        return wire.reply_to(message, self.client_id, {}, wire.record_of({wire.MEAN: torch.ones_like(mean)}))


class Mute(Client):
    """Never decrypts."""

    def decrypt(self, message: Message) -> Message | None:
        """Say nothing."""
        return None


def run(
    *answers: Answer, rounds: int = 1, name: str = "fedavg"
) -> tuple[Tensor, list[RoundResult], FakeGrid]:
    grid = FakeGrid(dict(enumerate(answers, start=1)))
    cohort = Cohort(grid, 2.0, 0.001)
    cohort.connect(1)
    plan = TrainingPlan(StrategySettings(), SelectionSettings(), rounds, 0, privacy=ENCRYPTED)
    results: list[RoundResult] = []
    arrays = train(plan, cohort, Start(flat_record([0.0, 1.0])), on_round=lambda r, _: results.append(r))
    return wire.state_of(arrays)["w"], results, grid


def reasons(result: RoundResult) -> dict[str, str]:
    return {fault.client_id: fault.reason for fault in result.faults}


def test_two_clients_by_hand() -> None:
    """1 example adds 2, 3 examples add 4: the mean is (1·2 + 3·4) / 4 = 3.5."""
    model, results, _ = run(Client("a", 1, 2.0), Client("b", 3, 4.0))
    torch.testing.assert_close(model, torch.tensor([3.5, 4.5]), rtol=0, atol=1e-5)
    assert (results[0].accepted, results[0].faults) == (("a", "b"), ())
    assert results[0].traffic.bytes_up > 2 * 2 * 60


def test_the_server_gets_nothing_of_a_client_but_ciphertexts_and_its_number_of_examples() -> None:
    seen: list[RecordDict] = []

    def watched(message: Message) -> Message | None:
        reply = Client("a", 1, 2.0)(message)
        if message.metadata.message_type == wire.TRAIN and reply is not None:
            seen.append(reply.content)
        return reply

    run(watched, Client("b", 3, 4.0))
    (content,) = seen
    assert not content.array_records
    assert dict(content.metric_records[wire.METRICS]) == {wire.NUM_EXAMPLES: 1}
    assert set(content.config_records) == {wire.CONFIG, wire.ENCRYPTED}
    assert set(content.config_records[wire.ENCRYPTED]) == {wire.PAYLOAD, wire.KEY_ID}


def test_several_rounds_add_up() -> None:
    model, results, _ = run(Client("a", 1, 2.0), Client("b", 3, 4.0), rounds=3)
    torch.testing.assert_close(model, torch.tensor([10.5, 11.5]), rtol=0, atol=1e-4)
    assert [len(result.accepted) for result in results] == [2, 2, 2]


@pytest.mark.parametrize("wrong", [raises, lambda message: None])
def test_a_client_that_fails_in_training_is_left_out(wrong: Callable[[Message], Message | None]) -> None:
    lost = Client("c", 5, 9.0)
    fails: Answer = lambda m: wrong(m) if m.metadata.message_type == wire.TRAIN else lost(m)  # noqa: E731
    model, results, _ = run(Client("a", 1, 2.0), Client("b", 3, 4.0), fails)
    torch.testing.assert_close(model, torch.tensor([3.5, 4.5]), rtol=0, atol=1e-5)
    assert list(reasons(results[0])) == ["c"]


def test_a_client_with_another_key_is_named_and_left_out() -> None:
    other = Client("c", 5, 9.0, Secret(new_secret()))
    model, results, _ = run(Client("a", 1, 2.0), Client("b", 3, 4.0), other)
    torch.testing.assert_close(model, torch.tensor([3.5, 4.5]), rtol=0, atol=1e-5)
    assert "another key" in reasons(results[0])["c"]


def test_a_client_that_diverged_sends_nothing() -> None:
    model, results, _ = run(Client("a", 1, 2.0), Client("b", 3, 4.0), Client("c", 5, float("nan")))
    torch.testing.assert_close(model, torch.tensor([3.5, 4.5]), rtol=0, atol=1e-5)
    assert "diverged" in reasons(results[0])["c"]


def _spoilt(content: RecordDict, what: str) -> None:
    if what == "payload":
        content[wire.ENCRYPTED] = ConfigRecord({wire.PAYLOAD: [b"x"], wire.KEY_ID: KEY.key_id})
    elif what == "clear":
        del content[wire.ENCRYPTED]
        content[wire.ARRAYS] = flat_record([1.0, 2.0])
    else:
        content.metric_records[wire.METRICS][wire.NUM_EXAMPLES] = 10**6


@pytest.mark.parametrize(
    ("what", "message"),
    [("payload", "damaged"), ("clear", "expected an encrypted update"), ("weight", "at most 5 by")],
)
def test_a_malformed_reply_is_rejected_and_named(what: str, message: str) -> None:
    honest = Client("c", 5, 9.0)

    def spoiling(asked: Message) -> Message | None:
        reply = honest(asked)
        if asked.metadata.message_type == wire.TRAIN and reply is not None:
            _spoilt(reply.content, what)
        return reply

    model, results, _ = run(Client("a", 1, 2.0), Client("b", 3, 4.0), spoiling)
    torch.testing.assert_close(model, torch.tensor([3.5, 4.5]), rtol=0, atol=1e-5)
    assert message in reasons(results[0])["c"]


def test_a_lying_decryptor_is_outvoted_and_named() -> None:
    model, results, grid = run(Liar("a", 1, 2.0), Client("b", 3, 4.0), Client("c", 4, 3.5))
    torch.testing.assert_close(model, torch.tensor([3.5, 4.5]), rtol=0, atol=1e-5)
    assert "not that of clients b and c" in reasons(results[0])["a"]
    assert sum(m.metadata.message_type == wire.DECRYPT for m in grid.sent) == 3


def test_two_that_agree_are_enough() -> None:
    _, _, grid = run(*(Client(name, 1, 1.0) for name in "abcde"))
    assert sum(m.metadata.message_type == wire.DECRYPT for m in grid.sent) == 2


def test_where_nobody_agrees_the_model_is_kept() -> None:
    model, results, _ = run(Liar("a", 1, 2.0), Mute("b", 3, 4.0), Mute("c", 3, 4.0))
    torch.testing.assert_close(model, torch.tensor([0.0, 1.0]), rtol=0, atol=0)
    assert "no two clients agree" in " ".join(fault.reason for fault in results[0].faults)


def test_one_client_alone_decrypts_its_own_update() -> None:
    model, _, _ = run(Client("a", 1, 2.0))
    torch.testing.assert_close(model, torch.tensor([2.0, 3.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({wire.KEY_ID: "other"}, "another key"),
        ({wire.WEIGHT: 0}, "out of range"),
        ({wire.SIZE: -1}, "out of range"),
        ({wire.PAYLOAD: "text"}, "expected"),
        ({wire.PAYLOAD: [b"x"]}, "damaged"),
    ],
)
def test_a_client_refuses_to_decrypt_nonsense(changed: dict[str, str | int], message: str) -> None:
    FakeGrid({})
    record = ConfigRecord({wire.PAYLOAD: KEY.encrypt(torch.ones(2)), wire.KEY_ID: KEY.key_id})
    record.update({wire.SIZE: 2, wire.WEIGHT: 1, **changed})
    asked = Message(RecordDict({wire.ENCRYPTED: record}), 1, wire.DECRYPT)
    asked.metadata.__dict__["_message_id"] = "1"
    reply = decrypted_reply(asked, "a", KEY)
    assert message in str(reply.content.config_records[wire.CONFIG][wire.REFUSED])
    assert not reply.content.array_records
