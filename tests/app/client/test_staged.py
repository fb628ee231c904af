"""app/client/staged.py: attackers and hard clients, as the run config names them."""

import torch

from app.client.staged import staged
from app.config.run_config import RunConfig
from app.project import ClientData
from strategies.core.examples import TensorExamples, in_memory

CONFIG = RunConfig().with_overrides(
    [
        *("attack.kind=backdoor", "attack.clients=3", "attack.share=0.5"),
        *("hard.kind=mislabelled", "hard.clients=5", "hard.examples=2", "run.seed=4"),
    ]
)


def data() -> ClientData:
    return ClientData(TensorExamples(torch.zeros(8, 1, 8, 8), torch.tensor([1, 2] * 4)))


def test_each_client_gets_what_the_config_says_of_it() -> None:
    """Client 3 has half of eight images stamped, client 5 two wrong labels, client 0 what it had."""
    attacker, hard, plain = (staged(data(), CONFIG, client) for client in ("3", "5", "0"))
    assert attacker.altered is not None
    assert hard.altered is not None
    assert (len(attacker.altered), len(hard.altered), plain.altered) == (4, 2, None)
    assert in_memory(attacker.train).y[attacker.altered].tolist() == [0] * 4
    changed = (in_memory(hard.train).y != torch.tensor([1, 2] * 4)).nonzero().flatten()
    assert changed.equal(hard.altered)
    assert plain.train.targets().tolist() == [1, 2] * 4


def test_the_seed_of_the_data_decides() -> None:
    """So that shadow models, which share it, hold the same hard examples."""
    same, other = (CONFIG.with_overrides(["run.seed=9", f"data.seed={seed}"]) for seed in (4, 5))
    found = [staged(data(), config, "3").altered for config in (CONFIG, same, other)]
    assert all(positions is not None for positions in found)
    first, again, different = (positions.tolist() for positions in found if positions is not None)
    assert first == again != different
