"""unlearning/settings.py: the section, what single methods own of it, and what version 0.1 wrote."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from strategies.client.settings import TrainSettings
from strategies.core.settings import Settings
from unlearning.central.finetune import FinetuneSettings
from unlearning.central.influence import InfluenceSettings
from unlearning.central.l1_sparse import L1SparseSettings
from unlearning.central.prune import PruneSettings
from unlearning.methods import METHODS
from unlearning.methods.federated import local_settings
from unlearning.methods.influence import central_settings
from unlearning.registry import names, settings_of
from unlearning.settings import FLAT, ForgetSettings, owners, renamed
from unlearning.traits.distill import DistillSettings
from unlearning.traits.influence import InfluenceKeys
from unlearning.traits.negate import NegateSettings
from unlearning.traits.rounds import RoundSettings

# by hand


def test_a_method_owns_its_keys() -> None:
    """Dotted, in tables and by field are the same; a key at its default is as if it were not given."""
    dotted = ForgetSettings.model_validate({"method": "distill", "distill.temperature": 2.0})
    table = {"temperature": 2.0, "epochs": 10}
    tables = ForgetSettings.model_validate({"method": "distill", "distill": table})
    assert dotted == tables == ForgetSettings.of("distill", temperature=2.0)
    assert hash(dotted) == hash(tables)
    assert dotted.own("distill", DistillSettings) == DistillSettings(temperature=2.0)
    assert ForgetSettings().own("distill", DistillSettings) == DistillSettings()


def test_keys_of_other_methods_stay() -> None:
    both = ForgetSettings.of("distill", epochs=3).with_own("negate", layers="conv1", epochs=3)
    assert both.own("distill", DistillSettings).epochs == 3
    assert both.own("negate", NegateSettings) == NegateSettings(layers="conv1", epochs=3)
    assert both.with_own("negate", epochs=10).own("negate", NegateSettings) == NegateSettings(layers="conv1")


def test_what_is_left_to_the_run_comes_from_training() -> None:
    """Learning rate 0.1, halved after each of 3 rounds: 0.025 in the last."""
    train = TrainSettings(momentum=0.5, weight_decay=0.01, learning_rate=0.1, lr_decay=0.5, batch_size=7)
    plan = SimpleNamespace(rounds=3, schedule_length=3)
    job: Any = SimpleNamespace(run=SimpleNamespace(train=train, plan=plan))
    expected = FinetuneSettings(learning_rate=0.025, momentum=0.5, weight_decay=0.01, batch_size=7)
    assert local_settings(job, RoundSettings(), FinetuneSettings) == expected
    own = RoundSettings(learning_rate=0.2, batch_size=4, epochs=2)
    told = local_settings(job, own, L1SparseSettings, gamma=0.5)
    assert (told.learning_rate, told.batch_size, told.epochs, told.gamma) == (0.2, 4, 2, 0.5)


def test_a_list_of_one_may_be_a_number() -> None:
    """On a command line, `--set forget.influence.alphas=2` is a number, and so is a layer's name."""
    assert central_settings(InfluenceKeys.model_validate({"alphas": 2})).alphas == (2.0,)
    assert NegateSettings.model_validate({"layers": 0}).layers == "0"


# identities


def test_keys_and_central_classes_have_the_same_defaults() -> None:
    lengths = ", ".join(map(str, InfluenceSettings().alphas))
    assert central_settings(InfluenceKeys(alphas=lengths)) == InfluenceSettings()
    general = ForgetSettings()
    assert (general.sparsity, general.prune_iterations, general.prune_round_share) == tuple(
        PruneSettings().model_dump().values()
    )


def test_the_registry_names_every_method_by_its_own_name() -> None:
    assert [method.name for method in METHODS.values()] == list(names())


@pytest.mark.parametrize("method", list(names()))
def test_settings_go_through_json_unchanged(method: str) -> None:
    """Of every method, with each number key changed a little."""
    values = {}
    for name, field in settings_of(method).model_fields.items():
        if isinstance(field.default, bool):
            values[name] = not field.default
        elif isinstance(field.default, int | float):
            values[name] = type(field.default)(field.default * 0.5) or field.default
    section = ForgetSettings.of(method, **values)
    assert ForgetSettings.stored(json.loads(json.dumps(section.model_dump(by_alias=True)))) == section


# version 0.1


def test_flat_keys_by_hand() -> None:
    """A key goes to all methods that read it; those at the value that left them alone to none."""
    assert renamed(dict(FLAT)) == {}
    assert renamed({"skew-alpha": 0.2}) == {"fast-fedul": {"alpha": 0.2}, "fast-distill": {"skew-alpha": 0.2}}
    assert renamed({"start": "fast-fedul"}) == {"distill": {"start": "fast-fedul"}}
    assert renamed({"redistill-start": "now"}) == {"redistill": {"start": "now"}}
    assert set(renamed({"gamma": 0.0, "method": "l1-sparse"})) == {"l1-sparse", "method"}
    told = {"method": "finetune", "epochs": 3, "learning-rate": 0.1, "prune": "omp"}
    old = ForgetSettings.stored({**FLAT, **told})
    assert old.own("finetune", RoundSettings) == RoundSettings(epochs=3, learning_rate=0.1)
    assert (old.method, old.prune) == ("finetune", "omp")


@pytest.mark.parametrize("flat", list(FLAT))
def test_every_flat_key_has_an_owner_whose_default_is_what_left_it_alone(flat: str) -> None:
    assert owners(flat)
    for method, key in owners(flat):
        field = settings_of(method).model_fields[key.replace("-", "_")]
        left_alone = FLAT[flat] in {-1, 0, -1.0} and not isinstance(FLAT[flat], bool)
        assert left_alone or field.default in {FLAT[flat], "auto"}


@given(st.dictionaries(st.sampled_from(["method", "sparsity", "prune"]), st.just("x")))
def test_other_keys_are_left_as_they_are(values: dict[str, str]) -> None:
    assert renamed(values) == values


# errors


@pytest.mark.parametrize("text", ["", "0.5,", "0", "-1, 2", "one", "inf", "nan", "1, 1"])
def test_alphas_refuse(text: str) -> None:
    with pytest.raises(ValidationError, match=re.escape("numbers above 0 separated by commas")):
        ForgetSettings.of("influence", alphas=text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finetune.epochs", -1),
        ("finetune.learning-rate", 0.0),
        ("finetune.learning-rate", "own"),
        ("finetune.batch-size", 0),
        ("ascent.recovery-rounds", -1),
        ("federaser.ratio", 0.0),
        ("federaser.interval", 0),
        ("fast-distill.skew-alpha", 1.5),
        ("sparsity", 1.0),
        ("prune", "random"),
        ("distill.start", "distill"),
        ("negate.layers", "a,,b"),
        ("negate.layers", True),
        ("retrain.epochs", 1),
        ("novel.epochs", 1),
        ("epochs", 1),
    ],
)
def test_the_section_refuses(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        ForgetSettings.model_validate({key: value})


def test_a_method_without_keys_has_none() -> None:
    assert settings_of("retrain") is Settings
