import random  # noqa: TID251 (its state is looked at)
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torch import Tensor

from app.config.settings import DataSettings
from app.data.partition import partition_indices, partitioned
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.seeds import numpy_generator
from tests.fresh_starts import FreshStarts

SCHEMES = ["iid", "dirichlet", "shards", "pathological"]


def balanced(n: int, num_classes: int = 10) -> np.ndarray:
    """Labels in the order of the classes, as in a sorted file."""
    return np.sort(np.arange(n) % num_classes)


def counts(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """Examples per client and class, shape [clients, classes]."""
    return np.stack([np.bincount(labels[part], minlength=int(labels.max()) + 1) for part in parts])


def skew(labels: np.ndarray, alpha: float) -> float:
    """Mean over ten clients of the largest class's share of a client's examples: 0.1 if all are balanced."""
    parts = partition_indices(labels, DataSettings(partition="dirichlet", alpha=alpha), 10, seed=0)
    table = counts(labels, parts)
    return float((table.max(axis=1) / table.sum(axis=1)).mean())


def test_iid_deals_out_evenly() -> None:
    """Ten examples over three clients: 4, 3 and 3."""
    parts = partition_indices(balanced(10), DataSettings(), 3, seed=0)

    assert [len(part) for part in parts] == [4, 3, 3]


def test_shards_are_one_class_each() -> None:
    """200 examples of 10 classes over 10 clients × 2 shards: each shard is half of a class's 20."""
    labels = balanced(200)

    table = counts(labels, partition_indices(labels, DataSettings(partition="shards"), 10, seed=0))

    assert set(table.flatten().tolist()) <= {0, 10, 20}
    assert table.sum(axis=1).tolist() == [20] * 10


def test_left_over_shards_go_to_some_clients_in_addition() -> None:
    """23 examples over 5 clients × 2 shards: shards of 2, of which there are 12, the last of 1."""
    parts = partition_indices(balanced(23), DataSettings(partition="shards"), 5, seed=0)

    sizes = [len(part) for part in parts]
    assert sum(sizes) == 23
    assert min(sizes) >= 3
    assert max(sizes) <= 6


@pytest.mark.parametrize("num_clients", [9, 10, 25])
def test_pathological_clients_hold_exactly_their_number_of_classes(num_clients: int) -> None:
    labels, settings = balanced(500), DataSettings(partition="pathological", classes_per_client=2)

    table = counts(labels, partition_indices(labels, settings, num_clients, seed=0))

    assert ((table > 0).sum(axis=1) == 2).all()
    assert (table.sum(axis=0) == 50).all()


def test_dirichlet_is_more_skewed_the_smaller_alpha() -> None:
    labels = balanced(2000)

    assert skew(labels, alpha=0.1) > 0.4
    assert skew(labels, alpha=100.0) < 0.2


def test_classes_are_not_cut_in_the_order_of_the_file() -> None:
    """A class that is cut in its order would give every client neighbours."""
    labels = np.zeros(100, dtype=np.int64)

    first = partition_indices(labels, DataSettings(partition="dirichlet", alpha=100.0), 2, seed=0)[0]

    assert (np.diff(first) > 1).sum() > 10


@hypothesis_settings(deadline=None, max_examples=20)
@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    num_clients=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_example_goes_to_one_client_and_every_client_gets_one(
    scheme: str, labels: list[int], num_clients: int, seed: int
) -> None:
    """Or the partition is refused, for small data cannot serve every scheme."""
    settings = DataSettings(partition=scheme)
    try:
        parts = partition_indices(np.array(labels), settings, num_clients, seed)
    except BadInput:
        assert scheme != "iid" or num_clients > len(labels)
        return

    assert len(parts) == num_clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("num_clients", [1, 7])
def test_enough_data_are_never_refused(scheme: str, num_clients: int) -> None:
    settings = DataSettings(partition=scheme, classes_per_client=5)
    labels = balanced(700, num_classes=5)

    assert sum(map(len, partition_indices(labels, settings, num_clients, seed=3))) == 700


def parts_of(scheme: str) -> Callable[[int], list[list[int]]]:
    settings = DataSettings(partition=scheme)
    return lambda seed: [part.tolist() for part in partition_indices(balanced(300), settings, 12, seed)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_seed_decides(scheme: str) -> None:
    parts = parts_of(scheme)

    assert parts(1) == parts(1)
    assert parts(1) != parts(2)


def test_the_seed_decides_for_few_clients_too() -> None:
    """With fewer clients than classes the pattern is fixed, but the order of the classes is drawn."""
    labels, settings = balanced(100), DataSettings(partition="pathological", classes_per_client=7)

    def held(seed: int) -> list[list[bool]]:
        return (counts(labels, partition_indices(labels, settings, 4, seed)) > 0).tolist()

    assert held(1) == held(1)
    assert held(1) != held(2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_global_generators_are_neither_used_nor_changed(scheme: str) -> None:
    def states() -> tuple[object, ...]:
        legacy = np.random.get_state()  # noqa: NPY002 (its state is looked at)
        return torch.get_rng_state().tolist(), legacy[1].tolist(), random.getstate()

    before, first = states(), parts_of(scheme)(1)
    assert states() == before

    torch.rand(1)
    np.random.rand()  # noqa: NPY002 (moves the global generator)
    random.random()
    assert parts_of(scheme)(1) == first


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_printed_or_warned_of(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    parts_of(scheme)(1)

    assert capfd.readouterr() == ("", "")


def test_iid_needs_no_heavy_import(fresh_starts: FreshStarts) -> None:
    code = (
        "import sys, numpy, app.data\n"
        "from app.config.settings import DataSettings\n"
        "app.data.partition_indices(numpy.zeros(9, int), DataSettings(), 3, 0)\n"
        "heavy = {'datasets', 'flwr_datasets', 'torchvision', 'sklearn', 'PIL', 'pyarrow', 'pandas'}\n"
        "print(*heavy & set(sys.modules))"
    )

    assert fresh_starts.run(code).split() == []


@pytest.mark.parametrize(("num_clients", "n"), [(5, 4), (1, 0), (0, 4), (-1, 4)])
def test_more_clients_than_examples_are_refused(num_clients: int, n: int) -> None:
    message = rf"^data\.clients: {num_clients} clients cannot share {n} training examples, allowed 1 to {n}$"

    with pytest.raises(BadInput, match=message):
        partition_indices(balanced(n), DataSettings(), num_clients, seed=0)


@pytest.mark.parametrize(
    ("scheme", "values", "hint"),
    [
        ("dirichlet", {"alpha": 0.001}, r"raise data\.alpha \(it is 0\.001\) or lower data\.clients"),
        ("shards", {"shards_per_client": 4}, r"lower data\.shards-per-client \(it is 4\) or data\.clients"),
        ("pathological", {"classes_per_client": 11}, r"change data\.classes-per-client \(it is 11\)"),
    ],
)
def test_a_partition_that_leaves_a_client_empty_is_refused(
    scheme: str, values: dict[str, float], hint: str
) -> None:
    message = (
        rf"^data\.partition: '{scheme}' over 20 clients leaves a client without an example, or an example "
        rf"without a client, of 70 training examples in 10 classes \(every client needs at least 1\); {hint}"
    )

    with pytest.raises(BadInput, match=message):
        partition_indices(balanced(70), DataSettings(partition=scheme, **values), 20, seed=0)


def test_a_partition_that_leaves_a_class_to_no_client_is_refused() -> None:
    """Five clients with 2 consecutive classes of a ring of 10 reach 6 of them."""
    with pytest.raises(BadInput, match=r"'pathological' over 5 clients .* change data\.classes-per-client"):
        partition_indices(balanced(100), DataSettings(partition="pathological"), 5, seed=0)


def test_a_lost_example_would_be_noticed() -> None:
    """Guards the property test: its check of the whole fails for parts that overlap or lack one."""
    parts = partition_indices(balanced(10), DataSettings(), 2, seed=int(numpy_generator(0).integers(9)))
    parts[0] = parts[0][1:]

    assert sorted(np.concatenate(parts).tolist()) != list(range(10))


def numbered_examples(targets: Tensor) -> TensorExamples:
    """Return examples with some targets."""
    return TensorExamples(torch.arange(len(targets)).view(-1, 1).float(), targets)


def spread(targets: Tensor, own: object = None, clients: int = 2, **settings: object) -> list[list[int]]:
    """Spread examples over clients."""
    examples = numbered_examples(targets)
    chosen = DataSettings.model_validate(settings)
    parts = partitioned(examples, examples.groups(), chosen, clients, 0, own)
    return [part.tolist() for part in parts]


def test_own_partition_by_hand() -> None:
    """Odd and even labels go to one client each; what is not named goes to nobody; keys may be client-ids."""
    labels = torch.tensor([1, 0, 2, 1, 4])
    by_parity = spread(
        labels, lambda y, clients, _: [np.flatnonzero(y % clients == k)[::-1] for k in range(2)]
    )
    assert by_parity == [[1, 2, 4], [0, 3]]
    assert spread(labels, lambda y, clients, _: {"1": [2], 0: [4, 0]}) == [[0, 4], [2]]
    drawn = [spread(labels, lambda y, k, rng: np.split(rng.permutation(4), 2)) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_own_partition_of_numbers() -> None:
    """Targets without groups are given as they are; without a function, only iid can spread them."""
    ages = torch.tensor([30.0, 70.0, 20.0, 90.0])
    assert spread(ages, lambda y, *_: [np.flatnonzero(y < 50), np.flatnonzero(y > 50)]) == [[0, 2], [1, 3]]
    halves = spread(ages)
    assert sorted(halves[0] + halves[1]) == [0, 1, 2, 3]
    assert halves == [part.tolist() for part in partition_indices(np.zeros(4, int), DataSettings(), 2, 0)]
    with pytest.raises(BadInput) as refused:
        spread(ages, partition="dirichlet")
    assert str(refused.value) == (
        "data.partition: given 'dirichlet', which spreads examples by their class, but these have no "
        'classes; allowed "iid", or a partition function of a project'
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([[0]], "gives 1 parts for 2 clients; wanted one for each"),
        ([[0], []], "leaves client 1 without an example; wanted at least one for each"),
        ({0: [0]}, "leaves client 1 without an example; wanted at least one for each"),
        ({0: [0], "b": [1]}, "names client 'b'; known clients: 0 to 1"),
        ([[0], [3]], "names example 3; allowed 0 to 2"),
        ([[-1], [1]], "names example -1; allowed 0 to 2"),
        ([[0, 1], [1]], "gives example 1 more than once; wanted each at most once"),
        ([[0, 0], [1]], "gives example 0 more than once; wanted each at most once"),
        (
            [[True, False, False], [0]],
            "gives client 0 bool of shape (3,); wanted positions, an array of whole numbers",
        ),
        (7, "gives int; wanted one array of positions for each client"),
    ],
)
def test_own_partition_is_checked(made: object, said: str) -> None:
    """Whatever is no partition is refused in one line."""
    with pytest.raises(BadInput) as refused:
        spread(torch.tensor([0, 1, 0]), lambda *_: made)
    assert str(refused.value) == f"lethe.Project: partition {said}"


def test_a_client_alone_holds_its_own_classes_and_its_part_of_the_others() -> None:
    """Ten examples of each of four classes over two clients: client 1 alone has all of class 3."""
    labels = np.repeat(np.arange(4), 10)
    plain = partition_indices(labels, DataSettings(), 2, 0)
    first, second = partition_indices(labels, DataSettings(own_classes="1=3"), 2, 0)
    assert 3 not in labels[first]
    assert int((labels[second] == 3).sum()) == 10
    others = [[i for i in part if labels[i] != 3] for part in (first, second)]
    assert others == [[i for i in part if labels[i] != 3] for part in plain]


@pytest.mark.parametrize("owners", ["2=3", "1=4"])
def test_classes_and_clients_that_there_are_not_are_refused(owners: str) -> None:
    with pytest.raises(BadInput, match=r"data\.own-classes: given .* allowed clients 0 to 1, classes 0 to 3"):
        partition_indices(np.repeat(np.arange(4), 10), DataSettings(own_classes=owners), 2, 0)


def test_a_client_that_is_left_without_an_example_is_refused() -> None:
    """All four classes are client 1's, however the others were spread."""
    with pytest.raises(BadInput, match=r"leaves a client without an ex.*fewer classes to data\.own-classes"):
        partition_indices(np.repeat(np.arange(4), 10), DataSettings(own_classes="1=0+1+2+3"), 2, 0)
