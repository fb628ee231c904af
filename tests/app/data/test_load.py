from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from PIL import Image

from app.config.settings import DataSettings, ModelSettings
from app.data import (
    UNLABELLED,
    ServerData,
    Terms,
    client_id_of,
    load_client_data,
    load_server_data,
    numbered,
    partition_indices,
)
from app.models.built_in import build_model
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples, concatenated

NUM_DIGITS = 1797


def node(partition: int, num_partitions: int = 10, **more: object) -> dict[str, object]:
    return {"partition-id": partition, "num-partitions": num_partitions, **more}


def all_clients(data: DataSettings, seed: int = 0, num_clients: int = 10) -> list[Examples]:
    return [load_client_data(data, seed, node(i, num_clients)) for i in range(num_clients)]


def table(path: Path, n: int, first: int = 0, num_classes: int = 2, test: int = 0) -> str:
    """Write a table whose rows are recognised by their one value, which counts up from `first`."""
    arrays = {"x_train": np.arange(first, first + n)[:, None], "y_train": np.arange(n) % num_classes}
    if test:
        arrays |= {"x_test": np.arange(1000, 1000 + test)[:, None], "y_test": np.arange(test) % num_classes}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return f"npz:{path}"


def values(examples: Examples | None) -> list[int]:
    return [] if examples is None else examples.x.flatten().int().tolist()


def everything(data: DataSettings, seed: int = 0, num_clients: int = 3) -> tuple[list[int], ...]:
    """The values that the clients, the public data and the test hold."""
    server = load_server_data(data, seed)
    clients = concatenated(all_clients(data, seed, num_clients))
    return values(clients), values(server.public), values(server.test)


def test_twenty_examples_are_split_by_hand(tmp_path: Path) -> None:
    """A fifth for testing: 4; a quarter of the other 16 public: 4; the last 12 over 3 clients: 4 each.

    Both held-out parts keep the proportion of the classes, 2 and 2.
    """
    data = DataSettings(name=table(tmp_path / "a.npz", 20), test_share=0.2, public="0.25")

    server, clients = load_server_data(data, 0), all_clients(data, num_clients=3)

    assert isinstance(server, ServerData)
    assert server.test is not None
    assert server.public is not None
    assert server.test.group_counts(2) == [2, 2]
    assert server.public.group_counts(2) == [2, 2]
    assert [len(client) for client in clients] == [4, 4, 4]
    assert (server.num_groups, server.input_shape, server.class_names) == (2, (1,), ("0", "1"))


def test_digits_by_default() -> None:
    """A fifth of 1797 to test on, a tenth of the rest public."""
    server = load_server_data(DataSettings(), 0)

    assert server.name == "digits"
    assert server.test is not None
    assert server.public is not None
    assert len(server.test) == 359
    assert len(server.public) == 144
    assert sum(map(len, all_clients(DataSettings()))) == NUM_DIGITS - 359 - 144


def test_partition_is_of_the_labels_that_remain(tmp_path: Path) -> None:
    """Without test and public data, a client holds what `partition_indices` gives it."""
    data = DataSettings(
        name=table(tmp_path / "a.npz", 30), test_share=0.0, public="0", partition="dirichlet", alpha=5.0
    )
    expected = partition_indices(np.arange(30) % 2, data, 4, seed=7)

    assert [values(client) for client in all_clients(data, 7, 4)] == [part.tolist() for part in expected]


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    test_share=st.sampled_from([0.0, 0.1, 0.5]),
    public=st.sampled_from(["0", "0.1", "0.6"]),
    train_limit=st.sampled_from([0, 20, 1000]),
    test_limit=st.sampled_from([0, 2, 1000]),
    num_clients=st.integers(1, 4),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_example_is_in_two_places(
    tmp_path_factory: pytest.TempPathFactory,
    test_share: float,
    public: str,
    train_limit: int,
    test_limit: int,
    num_clients: int,
    seed: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "sixty.npz"
    name = f"npz:{path}" if path.exists() else table(path, 60)
    data = DataSettings(
        name=name, test_share=test_share, public=public, train_limit=train_limit, test_limit=test_limit
    )

    clients, held, test = everything(data, seed, num_clients)

    together = clients + held + test
    assert len(set(together)) == len(together)
    tested = round(60 * test_share)
    assert len(test) == (min(tested, test_limit) if test_limit else tested)
    trained = 60 - tested
    assert len(clients + held) == (min(trained, train_limit) if train_limit else trained)
    assert len(held) == round(float(public) * len(clients + held))


def test_a_test_set_of_its_own_is_taken_as_it_is(tmp_path: Path) -> None:
    data = DataSettings(name=table(tmp_path / "a.npz", 20, test=6), public="0")

    clients, _, test = everything(data)

    assert test == [1000, 1001, 1002, 1003, 1004, 1005]
    assert sorted(clients) == list(range(20))


def test_limits_keep_the_proportions_of_the_classes(tmp_path: Path) -> None:
    """Of 30 examples in 3 classes, 9 and of 30 test examples, 6: 3 and 2 of each class."""
    name = table(tmp_path / "a.npz", 30, num_classes=3, test=30)
    data = DataSettings(name=name, public="0", train_limit=9, test_limit=6)

    server = load_server_data(data, 0)

    assert concatenated(all_clients(data, num_clients=3)).group_counts(3) == [3, 3, 3]
    assert server.test is not None
    assert server.test.group_counts(3) == [2, 2, 2]


def test_neutral_values_hold_nothing_out(tmp_path: Path) -> None:
    data = DataSettings(name=table(tmp_path / "a.npz", 20), test_share=0.0, public="0")

    server = load_server_data(data, 0)

    assert server.public is None
    assert server.test is None
    assert sorted(everything(data)[0]) == list(range(20))


def test_another_data_set_may_be_public_without_its_labels(tmp_path: Path) -> None:
    public = table(tmp_path / "b.npz", 5, first=500, num_classes=4, test=3)
    data = DataSettings(name=table(tmp_path / "a.npz", 20), public=public)

    server = load_server_data(data, 0)

    assert values(server.public) == [500, 501, 502, 503, 504]
    assert server.public is not None
    assert server.public.y.tolist() == [UNLABELLED] * 5
    assert server.num_groups == 2


def test_the_number_of_clients_is_the_settings_before_the_nodes() -> None:
    by_settings = load_client_data(DataSettings(clients=5), 0, node(0, num_partitions=10))

    assert len(by_settings) == len(load_client_data(DataSettings(), 0, node(0, num_partitions=5)))


@pytest.mark.parametrize("key", ["data.path", "data-path"])
def test_a_nodes_own_file_comes_before_its_partition(tmp_path: Path, key: str) -> None:
    own = table(tmp_path / "own.npz", 3, first=70).removeprefix("npz:")

    assert values(load_client_data(DataSettings(), 0, node(0, **{key: own}))) == [70, 71, 72]


def test_every_node_may_have_its_data_at_one_place(tmp_path: Path) -> None:
    """The settings name it, a node may say otherwise."""
    usual = table(tmp_path / "usual.npz", 1, first=1).removeprefix("npz:")
    other = table(tmp_path / "other.npz", 1, first=2).removeprefix("npz:")
    data = DataSettings(path=usual)

    assert values(load_client_data(data, 0, {"client-id": "a"})) == [1]
    assert values(load_client_data(data, 0, {"client-id": "b", "data.path": other})) == [2]


def test_a_nodes_own_folder_is_labelled_by_the_runs_classes(tmp_path: Path) -> None:
    """The run's classes are ant and bee; the node has bees alone."""
    for place in ("run/ant", "run/bee", "own/bee"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / place / "0.png")
    data = DataSettings(name=f"folder:{tmp_path / 'run'}")

    own = load_client_data(data, 0, {"client-id": "a", "data.path": str(tmp_path / "own")})

    assert own.y.tolist() == [1]


def test_a_numbered_folder_needs_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "4").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "4" / "0.png")
    data = DataSettings(name="npz:/not/on/this/machine.npz", path=str(tmp_path))

    assert load_client_data(data, 0, {}, Terms(numbered(10))).y.tolist() == [4]


def test_one_file_for_every_client_of_a_simulation_is_refused(tmp_path: Path) -> None:
    data = DataSettings(path="one.npz")

    with pytest.raises(
        BadInput, match=r"^data\.path: given one\.npz, which every client .* data\.name=npz:one"
    ):
        load_client_data(data, 0, node(0))


def test_a_nodes_own_images_have_the_runs_size(tmp_path: Path) -> None:
    (tmp_path / "4").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "4" / "0.png")
    data = DataSettings(name="npz:/not/on/this/machine.npz", path=str(tmp_path), size=8)

    assert load_client_data(data, 0, {}, Terms(numbered(10))).x.shape == (1, 1, 8, 8)


def test_a_node_with_other_data_than_the_servers_is_refused(tmp_path: Path) -> None:
    data = DataSettings(name=table(tmp_path / "a.npz", 20))

    with pytest.raises(BadInput, match="has the classes 0, 1 here, and 1, 2 with the server; both must read"):
        load_client_data(data, 0, node(0), Terms(("1", "2")))


def test_columns_are_brought_to_one_scale_by_hand(tmp_path: Path) -> None:
    """Training rows 0 and 2000 of one column: mean 1000, deviation 1000; the test row 3000 becomes 2."""
    arrays = {"x_train": np.array([[0.0, 1], [2000, 1]]), "y_train": np.array([0, 1])}
    arrays |= {"x_test": np.array([[3000.0, 1]]), "y_test": np.array([0])}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    data = DataSettings(name=f"npz:{tmp_path / 'a.npz'}", public="0", scale="standard")

    server, client = load_server_data(data, 0), load_client_data(data, 0, node(0, 1))

    assert client.x.tolist() == [[-1, 0], [1, 0]]
    assert server.test is not None
    assert server.test.x.tolist() == [[2, 0]]


def test_the_scale_is_that_of_the_training_data_alone(tmp_path: Path) -> None:
    """Clients and the public share together have mean 0 and deviation 1; the test data have not."""
    data = DataSettings(name=table(tmp_path / "a.npz", 40), scale="standard")

    server, clients = load_server_data(data, 0), all_clients(data, num_clients=3)

    assert server.public is not None
    training = torch.cat([server.public.x, *(client.x for client in clients)])
    assert training.mean().item() == pytest.approx(0, abs=1e-6)
    assert training.std(correction=0).item() == pytest.approx(1)


def test_columns_far_apart_are_said_unless_they_are_scaled(tmp_path: Path) -> None:
    x = np.array([[0, 0.0], [2000, 0.1], [0, 0.1], [2000, 0]])
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 0, 1]))
    data = DataSettings(name=f"npz:{tmp_path / 'a.npz'}", public="0", test_share=0.0)

    (note,) = load_server_data(data, 0).notes

    assert "the largest deviation of a column is 2e+04 times the smallest" in note
    assert not load_server_data(data.model_copy(update={"scale": "standard"}), 0).notes


def test_only_tables_in_one_place_are_scaled(tmp_path: Path) -> None:
    own = table(tmp_path / "a.npz", 4).removeprefix("npz:")
    with pytest.raises(
        BadInput, match=r'^data\.scale: given "standard", which is for tables; .digits. has inputs'
    ):
        load_server_data(DataSettings(scale="standard"), 0)
    with pytest.raises(BadInput, match=r'^data\.scale: given "standard", which takes all data in one place'):
        load_client_data(DataSettings(scale="standard"), 0, {"data.path": own}, Terms(numbered(2)))


def test_a_table_trains_an_mlp(tmp_path: Path) -> None:
    data = DataSettings(name=table(tmp_path / "a.npz", 20))
    server, client = load_server_data(data, 0), load_client_data(data, 0, node(0, 3))

    model = build_model(ModelSettings(name="mlp"), server.input_shape, server.num_groups, 0)
    torch.nn.functional.cross_entropy(model(client.x), client.y).backward()

    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_caller_may_change_what_it_gets() -> None:
    before = load_client_data(DataSettings(), 0, node(0))
    before.x.zero_()

    assert load_client_data(DataSettings(), 0, node(0)).x.any()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_the_seed_decides_each_part(tmp_path: Path, part: int) -> None:
    """Clients, public data and test."""
    data = DataSettings(name=table(tmp_path / "a.npz", 60))

    assert everything(data, 1)[part] == everything(data, 1)[part]
    assert sorted(everything(data, 1)[part]) != sorted(everything(data, 2)[part])


def test_global_generators_are_neither_used_nor_changed(tmp_path: Path) -> None:
    """The second data set is the first under another name, so nothing comes from a cache."""
    names = [table(tmp_path / f"{i}.npz", 60) for i in range(2)]
    state = torch.get_rng_state()
    first = everything(DataSettings(name=names[0]))
    assert torch.equal(torch.get_rng_state(), state)

    torch.rand(1)
    np.random.rand()  # noqa: NPY002 (moves the global generator)
    assert everything(DataSettings(name=names[1])) == first


def test_client_ids() -> None:
    assert client_id_of({"client-id": "hospital-a", "partition-id": 3}) == "hospital-a"
    assert client_id_of({"client-id": 7}) == "7"
    assert client_id_of(node(3)) == "3"


@pytest.mark.parametrize("client_id", ["", "a,b", "a b", "a\n"])
def test_a_client_id_that_no_list_could_hold_is_refused(client_id: str) -> None:
    with pytest.raises(BadInput, match=r"^client-id: is .*: expected 1 to 64 ASCII letters, "):
        client_id_of({"client-id": client_id})


def test_a_node_without_a_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^client-id: not in the node's config; start the SuperNode with"):
        client_id_of({"num-partitions": 3})


def test_label_counts() -> None:
    examples = TensorExamples(torch.zeros(4, 1), torch.tensor([2, 0, 2, 2]))

    assert examples.group_counts(4) == [1, 0, 3, 0]
    assert examples.subset([]).group_counts(2) == [0, 0]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(BadInput, match=rf"^label {label} is no class; labels must be 0 to 2$"):
        TensorExamples(torch.zeros(2, 1), torch.tensor([0, label])).group_counts(3)


@pytest.mark.parametrize(
    ("settings", "config", "message"),
    [
        ({}, node(10), r"^partition-id: given 10, allowed 0 to 9; the data are spread over 10 clients"),
        ({"clients": 4}, node(4), r"^partition-id: given 4, allowed 0 to 3; .* 4 clients \(data\.clients\)$"),
        ({}, {"num-partitions": 3}, r"^partition-id: not in the node's config; wanted partition-id and num-"),
        ({}, {"partition-id": 0}, r"^num-partitions: not in the node's config; wanted .* or data\.path$"),
        ({}, node("a"), r"^partition-id: given 'a', allowed an integer$"),  # type: ignore[arg-type]
        ({}, node(0, **{"data.path": "/none.npz"}), r"^/none\.npz: no such file"),
        ({"clients": 2000}, node(0), r"^data\.clients: 2000 clients cannot share 1294 training examples"),
    ],
)
def test_a_client_without_data_is_refused(
    settings: dict[str, int], config: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        load_client_data(DataSettings(**settings), 0, config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"public": "0.001"},
            r"^data\.public: given 0\.001, which is 0 of 16 training examples; allowed 0, or",
        ),
        ({"public": "0.99"}, r"^data\.public: given 0\.99, which is 16 of 16 .* a share that is 1 to 15$"),
        ({"test_share": 0.01}, r"^data\.test-share: given 0\.01, which is 0 of 20 training examples"),
        (
            {"public": "digits"},
            r"^data\.public: 'digits' has inputs of shape \(1, 8, 8\), 'npz:.*' of \(1,\); they",
        ),
        ({"public": "digit"}, r"^data\.public: unknown data set 'digit'; did you mean 'digits'"),
    ],
)
def test_a_part_that_cannot_be_had_is_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    data = DataSettings(name=table(tmp_path / "a.npz", 20), **settings)  # type: ignore[arg-type]

    with pytest.raises(BadInput, match=message):
        load_server_data(data, 0)


def test_the_clients_data_are_not_public() -> None:
    with pytest.raises(
        BadInput, match=r"^data\.public: 'digits' is the clients' data; give a share of it, another"
    ):
        load_server_data(DataSettings(public="Digits"), 0)


def test_a_test_example_that_a_client_trains_on_would_be_noticed(tmp_path: Path) -> None:
    """Guards the property test: two seeds' splits put together overlap."""
    data = DataSettings(name=table(tmp_path / "a.npz", 60))
    together = everything(data, 1)[0] + everything(data, 2)[2]

    assert len(set(together)) < len(together)
