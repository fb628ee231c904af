"""app/data/synthetic.py: devices as the paper draws them."""

import numpy as np
import pytest

from app.config.settings import DataSettings
from app.data import load_client_data, load_server_data
from app.data.reading import Reading
from app.data.sources import open_data_set
from app.data.synthetic import CLASSES, DIMENSIONS, device_data, device_sizes, read_synthetic
from strategies.core.errors import BadInput
from strategies.core.seeds import numpy_generator

SETTINGS = DataSettings(name="synthetic:1,1,4", partition="devices", clients=4, public="0")


def many(alpha: float, beta: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    return device_data(alpha, beta, size, numpy_generator(0, "test"))


def test_inputs_vary_as_they_should() -> None:
    """Σ_jj = j^−1.2: deviations 1, 2^−0.6 = 0.66, … of 20,000 draws."""
    x, _ = many(1.0, 1.0, 20_000)
    expected = np.arange(1.0, DIMENSIONS + 1) ** -0.6
    np.testing.assert_allclose(x.std(axis=0), expected, rtol=0.03)
    assert expected[1] == pytest.approx(0.6598, abs=1e-4)


@pytest.mark.parametrize(("beta", "deviation"), [(0.0, 1.0), (3.0, 2.0)])
def test_centres_differ_by_beta(beta: float, deviation: float) -> None:
    """v_k ~ N(B_k, 1) with B_k ~ N(0, β): over devices, the deviation of one entry is √(1 + β)."""
    firsts = [device_data(1.0, beta, 1, numpy_generator(i, "device"))[0][0, -1] for i in range(2000)]
    assert np.std(firsts) == pytest.approx(deviation, rel=0.06)


def test_labels_are_those_of_a_linear_model() -> None:
    """A least-squares fit of the labels of one device, one column per class, finds most of them again."""
    x, y = many(1.0, 1.0, 4000)
    design = np.c_[x - x.mean(axis=0), np.ones(len(x))].astype(np.float64)
    weights = np.linalg.lstsq(design, np.eye(CLASSES)[y], rcond=None)[0]
    assert (design @ weights).argmax(axis=1)[y >= 0].tolist() != [0] * len(y)
    assert float(((design @ weights).argmax(axis=1) == y).mean()) > 0.8


def test_sizes_follow_a_power_law() -> None:
    """50 + e^(4 + 2z): the median is 50 + e⁴ = 104.6, and a few devices have most."""
    sizes = np.array(device_sizes(4000, numpy_generator(0, "sizes")))
    assert sizes.min() >= 50
    assert np.median(sizes) == pytest.approx(50 + np.exp(4), rel=0.08)
    assert sizes.max() > 20 * np.median(sizes)


def test_it_does_not_depend_on_the_run() -> None:
    assert read_synthetic("1,1,3").train.x.equal(read_synthetic(" 1, 1, 3, 0").train.x)
    assert not read_synthetic("1,1,3,1").train.x[:5].equal(read_synthetic("1,1,3").train.x[:5])
    assert open_data_set("synthetic", Reading()).train.x.equal(read_synthetic("1,1,30,0").train.x)


def test_every_client_is_a_device() -> None:
    """Nine tenths of its examples, whatever the run's seed; the last tenth is for testing."""
    sizes = device_sizes(4, numpy_generator(0, "synthetic", "sizes"))
    for seed in (0, 1):
        for client, size in enumerate(sizes):
            found = load_client_data(SETTINGS, seed, {"partition-id": client, "num-partitions": 4})
            assert len(found) == size - size // 10
    x, _ = device_data(1.0, 1.0, sizes[3], numpy_generator(0, "synthetic", 3))
    assert sorted(found.x[:, 0].tolist()) == sorted(x[: len(found), 0].tolist())
    server = load_server_data(SETTINGS, 0)
    assert server.test is not None
    assert len(server.test) == sum(size // 10 for size in sizes)
    assert server.input_shape == (60,)


@pytest.mark.parametrize("text", ["1", "1,1,0", "a,b", "1,1,30,0,0", "-1,1"])
def test_what_describes_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="allowed synthetic:<alpha>,<beta>"):
        open_data_set(f"synthetic:{text}", Reading())


@pytest.mark.parametrize(
    "settings", [SETTINGS.model_copy(update={"clients": 3}), DataSettings(partition="devices", clients=4)]
)
def test_other_numbers_of_clients_are_refused(settings: DataSettings) -> None:
    with pytest.raises(BadInput, match=r"set data\.clients to the number of devices"):
        load_client_data(settings, 0, {"partition-id": 0, "num-partitions": settings.clients})
