"""app/workflows/sweep_file.py: a sweep's file is read whole, or refused with one line."""

from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows.sweep_file import Range, check_values, read_sweep
from strategies.core.errors import BadInput

WHOLE = """
[sweep]
metric = "loss"
trials = 7
[sweep.space]
train.learning-rate = { low = 0.01, high = 0.2, log = true }
train.local-epochs = { low = 1, high = 4 }
strategy.name = ["fedavg", "scaffold"]
[data]
validation-share = 0.3
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "rates.toml").write_text(WHOLE)
    found = read_sweep(tmp_path / "rates.toml")
    assert (found.name, found.settings.metric, found.trials) == ("rates", "loss", 7)
    assert found.space == {
        "train.learning-rate": Range(0.01, 0.2, log=True),
        "train.local-epochs": Range(1, 4, whole=True),
        "strategy.name": ("fedavg", "scaffold"),
    }
    assert found.base == {"data.validation-share": 0.3}


def test_the_digest_is_of_all_but_the_number_of_trials(tmp_path: Path) -> None:
    digests = []
    for change in (("", ""), ("trials = 7", "trials = 9"), ("0.2", "0.3"), ("share = 0.3", "share = 0.2")):
        (tmp_path / "rates.toml").write_text(WHOLE.replace(*change))
        digests.append(read_sweep(tmp_path / "rates.toml").digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_grid_has_as_many_trials_as_combinations(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[sweep]\nsampler = "grid"\n[sweep.space]\ntrain.momentum = [0.1, 0.2]\nrun.seed = [1, 2, 3]\n'
    )
    assert read_sweep(tmp_path / "a.toml").trials == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trials = 7", "trails = 7"), "sweep.trails: unknown key; known keys: name, metric"),
        (("trials = 7", "trials = 0"), "sweep.trials: given 0, allowed an integer >= 1"),
        (("trials = 7", 'sampler = "best"'), 'sweep.sampler: given "best", allowed one of tpe, random, grid'),
        (("trials = 7", 'sampler = "grid"'), "sweep.space.train.learning-rate: given a range"),
        (("trials = 7", 'name = "a b"'), 'sweep.name: given "a b"'),
        (("train.learning", "train.lerning"), "did you mean 'train.learning-rate'?"),
        (("validation-share", "validaton-share"), "did you mean 'data.validation-share'?"),
        (("low = 0.01", "low = 0.5"), "with low below high"),
        (("low = 0.01", "low = 0.0"), "above 0 with log = true"),
        (("low = 1,", "low = 1.5,"), "both integers"),
        (("0.01, high = 0.2", "0.01"), "with low below high"),
        (('["fedavg", "scaffold"]', '"fedavg"'), "sweep.space.strategy.name: given"),
        (('["fedavg", "scaffold"]', "[]"), "allowed a list of values"),
        (('"scaffold"]', '"fedavg"]'), "allowed a list of different values"),
        (("strategy.name", "data.validation-share"), "given as a key of the run config as well"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "rates.toml").write_text(WHOLE.replace(*change))
    with pytest.raises(BadInput) as caught:
        read_sweep(tmp_path / "rates.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_without_a_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[sweep]\ntrials = 3\n")
    with pytest.raises(BadInput, match="nothing to try"):
        read_sweep(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("train.momentum = [0.5, 1.5]", "train.momentum: given 1.5, allowed a number >= 0 and < 1"),
        ("train.momentum = { low = 0.5, high = 1.5 }", "train.momentum: given 1.5"),
        ('strategy.name = ["fedavg", "fedavgg"]', "did you mean 'fedavg'"),
        ('privacy.unit = ["none", "example"]', "every trial of a private run spends"),
    ],
)
def test_values_are_checked_before_any_trial(tmp_path: Path, space: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(f"[sweep.space]\n{space}\n")
    with pytest.raises(BadInput) as caught:
        check_values(read_sweep(tmp_path / "a.toml"), RunConfig())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "private",
    [
        ["privacy.unit=example", "privacy.noise-multiplier=1.0"],
        ["strategy.name=fedmd", "strategy.logit-noise=1.0", "strategy.logit-clip=1.0"],
    ],
)
def test_a_private_sweep_is_refused(tmp_path: Path, private: list[str]) -> None:
    (tmp_path / "a.toml").write_text("[sweep.space]\ntrain.momentum = [0.5, 0.6]\n")
    with pytest.raises(BadInput, match="every trial of a private run spends"):
        check_values(read_sweep(tmp_path / "a.toml"), RunConfig.resolve(None, private))
