"""strategies/personal/ditto.py: FedAvg's global model, and a personal one that is held near it."""

import copy
from itertools import pairwise

import pytest
import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from strategies import fedavg
from strategies.client.own_models import ClientState
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, LocalResult, local_train
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.seeds import torch_generator
from strategies.personal import ditto
from strategies.settings import StrategySettings
from tests.strategies.fedprox.test_fedprox import examples, model

TRAIN = TrainSettings(local_epochs=2, batch_size=8, learning_rate=0.1)


def job(weight: float, state: RecordDict, server_round: int = 1, **more: object) -> ClientJob:
    generator = torch_generator(0, "client", server_round)
    strategy = StrategySettings(name="ditto", ditto_lambda=weight)
    whole = {"state": state, **more}
    return ClientJob(model(), examples(), TRAIN, strategy, "3", server_round, generator, **whole)  # type: ignore[arg-type]


def flat(network: nn.Module) -> Tensor:
    state = network.state_dict()
    return wire.Layout.of(state).flatten(state)


def personal_model(
    weight: float, rounds: int = 1, state: RecordDict | None = None, lineage: str = ""
) -> Tensor:
    kept = RecordDict() if state is None else state
    for server_round in range(1, rounds + 1):
        ditto.train_client(job(weight, kept, server_round, lineage=lineage))
    return flat(ditto.personalise(job(weight, kept, lineage=lineage)))


def test_one_step_worked_by_hand() -> None:
    """One round of one full-batch step: v_1 = w − η ∇F(w), whatever λ is, as v starts at w_t."""
    whole = TRAIN.model_copy(update={"batch_size": 40, "local_steps": 1, "momentum": 0.0})
    expected = model()
    local_train(expected, examples(), whole, torch_generator(0))
    for weight in (0.0, 3.0):
        kept = RecordDict()
        given = job(weight, kept)
        given = ClientJob(
            given.model, given.examples, whole, given.strategy, "3", 1, given.generator, state=kept
        )
        ditto.train_client(given)
        found = ditto.personalise(job(weight, kept))
        torch.testing.assert_close(flat(found), flat(expected))


def test_the_global_model_is_fedavgs_bit_for_bit() -> None:
    plain = flat(fedavg.train_client(job(0.0, RecordDict())).model)
    for weight in (0.0, 1.0):
        result: LocalResult = ditto.train_client(job(weight, RecordDict()))
        assert flat(result.model).equal(plain)


def test_lambda_zero_is_local_training_bit_for_bit_and_another_is_not() -> None:
    """Three rounds against a plain loop that is never told of the global model again."""
    alone = copy.deepcopy(model())
    for server_round in (1, 2, 3):
        generator = torch_generator(torch_generator(0, "client", server_round).initial_seed(), "ditto")
        local_train(alone, examples(), TRAIN, generator)
    assert personal_model(0.0, 3).equal(flat(alone))
    assert not personal_model(0.5, 3).equal(flat(alone))


def test_a_larger_lambda_stays_nearer() -> None:
    """The sign of the term. With η λ = 0.4 at the most, the steps are stable."""
    distances = [float((personal_model(weight, 2) - flat(model())).norm()) for weight in (0.0, 1.0, 4.0)]
    assert all(further > nearer for further, nearer in pairwise(distances))


def test_the_state_is_one_vector_per_lineage() -> None:
    """Retraining under a lineage of its own leaves the run's model alone."""
    kept = RecordDict()
    before = personal_model(0.0, 1, kept)
    personal_model(0.0, 2, kept, "client-3-retrain")
    assert flat(ditto.personalise(job(0.0, kept))).equal(before)
    assert [sorted(record) for record in kept.array_records.values()] == [["model"], ["model"]]
    assert sum(wire.records_bytes(RecordDict({"r": r})) for r in kept.values()) == 2 * 4 * len(before)


def test_a_client_without_state_uses_the_global_model() -> None:
    assert flat(ditto.personalise(job(0.1, RecordDict()))).equal(flat(model()))


def test_a_state_of_another_architecture_is_refused() -> None:
    kept = RecordDict()
    ClientState(kept, "", ditto.KIND).write_model(nn.Linear(2, 2))
    with pytest.raises(LetheError, match="has 43 parameters, but the state it kept has 6"):
        ditto.train_client(job(0.1, kept))
