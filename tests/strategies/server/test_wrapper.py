"""strategies/server/wrapper.py: entries and records that a wrapper adds to messages."""

from flwr.app import ConfigRecord, Message

from strategies.core import wire
from strategies.fedavg import FedAvg
from strategies.server.wrapper import AddedEntries, AddedRecords
from tests.strategies.fakes import FakeGrid, flat_record, two_clients


def configs(strategy: AddedEntries, server_round: int) -> list[ConfigRecord]:
    messages = strategy.configure_train(
        server_round, flat_record([0.0]), ConfigRecord({"a": 1}), FakeGrid(two_clients())
    )
    return [message.content.config_records[wire.CONFIG] for message in messages]


def test_each_message_gets_the_entries_of_its_round_and_node() -> None:
    """Node 1 is told 31 in round 3 and node 2 is told 32; what was there before stays."""
    strategy = AddedEntries(FedAvg(), lambda server_round, node: {"number": 10 * server_round + node})
    assert [dict(config) for config in configs(strategy, 3)] == [
        {"a": 1, wire.SERVER_ROUND: 3, "number": 31},
        {"a": 1, wire.SERVER_ROUND: 3, "number": 32},
    ]


def test_a_message_without_entries_keeps_the_shared_content() -> None:
    """Messages share one content: node 2's entry must not reach node 1."""
    strategy = AddedEntries(FedAvg(), lambda _, node: {"number": node} if node == 2 else {})
    assert ["number" in config for config in configs(strategy, 1)] == [False, True]


def test_the_second_exchange_of_a_strategy_without_one_stays_empty() -> None:
    strategy = AddedEntries(FedAvg(), lambda *_: {"number": 1})
    grid = FakeGrid(two_clients())
    messages: list[Message] = list(strategy.configure_return(1, flat_record([0.0]), ConfigRecord(), grid))
    assert messages == []


def test_every_message_gets_the_records_beside_the_model() -> None:
    teacher = flat_record([7.0])
    sent = AddedRecords(FedAvg(), {"teacher": teacher}).configure_train(
        1, flat_record([0.0]), ConfigRecord({"a": 1}), FakeGrid(two_clients())
    )
    found = [(set(m.content), m.content.array_records["teacher"] is teacher) for m in sent]
    assert found == 2 * [({wire.ARRAYS, wire.CONFIG, "teacher"}, True)]
