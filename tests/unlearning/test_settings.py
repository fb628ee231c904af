"""unlearning/settings.py: the section of all methods, and the settings of one of them made from it."""

import re

import pytest
from pydantic import Field, ValidationError

from strategies.client.settings import TrainSettings
from strategies.core.settings import Settings
from unlearning.central.finetune import FinetuneSettings
from unlearning.central.fisher import FisherSettings
from unlearning.central.influence import InfluenceSettings
from unlearning.central.l1_sparse import L1SparseSettings
from unlearning.central.prune import PruneSettings
from unlearning.central.skew import SkewSettings
from unlearning.methods.distill import DistillSettings
from unlearning.settings import OWN_DEFAULT, ForgetSettings, method_settings


class Named(Settings):
    """A method that calls the section's gamma weight, and has a field of its own."""

    weight: float = 1.0
    epochs: int = Field(default=7, ge=0)
    own: str = "kept"


# by hand


def test_the_section_fills_the_fields_of_the_same_name() -> None:
    settings = method_settings(L1SparseSettings, ForgetSettings(epochs=3, gamma=0.5, learning_rate=0.2))
    assert settings == L1SparseSettings(epochs=3, gamma=0.5, learning_rate=0.2)


def test_other_names_are_translated_and_own_fields_kept() -> None:
    settings = method_settings(Named, ForgetSettings(gamma=0.25), weight="gamma")
    assert settings == Named(weight=0.25, epochs=7, own="kept")


def test_momentum_and_weight_decay_come_from_training() -> None:
    train = TrainSettings(momentum=0.5, weight_decay=0.01, learning_rate=9.0)
    assert method_settings(FinetuneSettings, ForgetSettings(), train) == FinetuneSettings(
        momentum=0.5, weight_decay=0.01
    )


def test_lists_are_parsed() -> None:
    settings = ForgetSettings(alpha_search="0.5, 2", negate_layers="conv1, head")
    assert settings.alphas == (0.5, 2.0)
    assert settings.layers == ("conv1", "head")
    assert method_settings(InfluenceSettings, settings, alphas="alphas").alphas == (0.5, 2.0)


def test_a_list_of_one_may_be_a_number() -> None:
    """On a command line, `--set forget.alpha-search=2` is a number, and so is the name of a first layer."""
    settings = ForgetSettings.model_validate({"alpha-search": 2, "negate-layers": 0})
    assert (settings.alphas, settings.layers) == ((2.0,), ("0",))


# identities


def test_an_untouched_section_leaves_every_method_at_its_own_defaults() -> None:
    """Defaults stand in two places, in the section and in the central classes: they agree."""
    section = ForgetSettings()
    assert method_settings(FinetuneSettings, section) == FinetuneSettings()
    assert method_settings(L1SparseSettings, section) == L1SparseSettings()
    assert method_settings(DistillSettings, section) == DistillSettings()
    assert method_settings(InfluenceSettings, section, alphas="alphas") == InfluenceSettings()
    fisher = method_settings(FisherSettings, section, alpha="fisher_alpha", max_inverse="fisher_max_inverse")
    assert fisher == FisherSettings()
    skew = method_settings(SkewSettings, section, alpha="skew_alpha", theta="skew_theta")
    assert skew == SkewSettings()
    prune = method_settings(
        PruneSettings,
        section,
        rate="sparsity",
        iterations="prune_iterations",
        round_rate="prune_round_share",
    )
    assert prune == PruneSettings()


def test_no_epoch_is_not_the_own_default() -> None:
    """0 passes are asked for by 0; only -1 leaves the number to the method."""
    assert method_settings(FinetuneSettings, ForgetSettings(epochs=0)).epochs == 0


def test_the_own_defaults_are_the_sections_defaults() -> None:
    section = ForgetSettings()
    assert {name: getattr(section, name) for name in OWN_DEFAULT} == OWN_DEFAULT


# errors


@pytest.mark.parametrize("text", ["", "0.5,", "0", "-1, 2", "one", "inf", "nan", "1, 1"])
def test_alphas_refuse(text: str) -> None:
    with pytest.raises(ValidationError, match=re.escape("numbers above 0 separated by commas")):
        ForgetSettings(alpha_search=text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", -2),
        ("learning-rate", -0.1),
        ("batch-size", -1),
        ("recovery-rounds", -2),
        ("ratio", 0.0),
        ("interval", 0),
        ("skew-alpha", 1.5),
        ("sparsity", 1.0),
        ("prune", "random"),
        ("start", "distill"),
        ("negate-layers", "a,,b"),
        ("negate-layers", True),
    ],
)
def test_the_section_refuses(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        ForgetSettings.model_validate({key: value})


def test_a_translation_to_a_field_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(AttributeError, match="no attribute 'gama'"):
        method_settings(Named, ForgetSettings(), weight="gama")
