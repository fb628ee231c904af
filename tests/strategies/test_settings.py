"""strategies/settings.py: what a section checks alone, and the texts that hold lists, shares and options."""

import re

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from strategies.analytics.settings import AnalyticsSettings
from strategies.client.settings import TrainSettings
from strategies.core.settings import Settings, hyphenated, split_list
from strategies.log.settings import LogSettings
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings

SECTIONS = [AnalyticsSettings, TrainSettings, StrategySettings, SelectionSettings, LogSettings]

client_ids = st.text("abz0129-._", min_size=1, max_size=6)


# by hand


def test_work_by_hand() -> None:
    """Client 0 does half of its local work, client hospital-a all of it."""
    settings = StrategySettings(name="fedprox", work="0=0.5, hospital-a=1")
    assert settings.work_shares == {"0": 0.5, "hospital-a": 1.0}


def test_options_by_hand() -> None:
    settings = StrategySettings(
        name="flwr:FedAdam", options="eta = 0.1, tau = 1e-3, note = 'a, b', on = true"
    )
    assert settings.option_values == {"eta": 0.1, "tau": 1e-3, "note": "a, b", "on": True}


@pytest.mark.parametrize(("retention", "interval"), [("full", 1), ("sum", 1), ("interval:3", 3)])
def test_interval_by_hand(retention: str, interval: int) -> None:
    assert LogSettings(retention=retention).interval == interval


# properties


@given(st.lists(client_ids, unique=True))
def test_split_list_undoes_join(entries: list[str]) -> None:
    assert split_list(",".join(entries)) == tuple(entries)
    assert split_list(" , ".join(entries)) == tuple(entries)


@given(st.dictionaries(client_ids, st.floats(0, 1, exclude_min=True)))
def test_work_shares_undo_their_text(shares: dict[str, float]) -> None:
    text = ",".join(f"{client_id}={share!r}" for client_id, share in shares.items())
    assert StrategySettings(work=text).work_shares == shares


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_its_line_in_the_docstring(section: type[Settings]) -> None:
    bases = [base for base in reversed(section.__mro__) if issubclass(base, Settings)]
    documented = [base.__doc__ or "" for base in bases]
    described = re.findall(r"^    (\w+)\n        \S", "\n".join(documented), flags=re.MULTILINE)
    assert described == list(section.model_fields)


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_pass_their_own_checks_under_either_name(section: type[Settings]) -> None:
    defaults = section().model_dump()
    assert section.model_validate(defaults) == section()
    assert section.model_validate({hyphenated(name): value for name, value in defaults.items()}) == section()


def test_an_integer_serves_as_a_number_and_becomes_one() -> None:
    learning_rate = TrainSettings(learning_rate=1).learning_rate
    assert (learning_rate, type(learning_rate)) == (1.0, float)


# errors


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 2.0),
        ("batch_size", "32"),
        ("local_steps", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("lr_decay", 1.5),
        ("optimizer", "SGD"),
        ("local-step", 1),
    ],
)
def test_train_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        TrainSettings.model_validate({field: value})


@pytest.mark.parametrize(
    ("work", "complaint"),
    [
        ("0", "'client-id=share' pairs, each with a client-id of its own"),
        ("0=half", "'client-id=share' pairs separated by commas"),
        ("=0.5", "'client-id=share' pairs, each with a client-id of its own"),
        ("0=0.5,0=0.6", "'client-id=share' pairs, each with a client-id of its own"),
        ("0=0", "'client-id=share' pairs with every share in (0, 1]"),
        ("0=1.5", "'client-id=share' pairs with every share in (0, 1]"),
        ("0=nan", "'client-id=share' pairs with every share in (0, 1]"),
        ("0=0.5,", "a comma-separated list without empty entries"),
        ("0=0.5,0=0.5", "a comma-separated list without repetitions"),
    ],
)
def test_work_refuses(work: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        StrategySettings(work=work)


@pytest.mark.parametrize("options", ["eta", "eta = ", "eta = 0.1 tau = 1", "a = 1, a = 2", "}\nb = {"])
def test_options_refuse_what_is_not_toml(options: str) -> None:
    with pytest.raises(ValidationError, match="TOML pairs"):
        StrategySettings(options=options)


@pytest.mark.parametrize("options", ["a = [1]", "a = {b = 1}", "a.b = 1", "a = 2024-01-01"])
def test_options_refuse_values_that_are_no_scalars(options: str) -> None:
    with pytest.raises(ValidationError, match="numbers, booleans or strings"):
        StrategySettings(options=options)


@pytest.mark.parametrize(
    "retention", ["", "all", "interval", "interval:", "interval:0", "interval:-1", "sum:2"]
)
def test_retention_refuses(retention: str) -> None:
    with pytest.raises(ValidationError, match=re.escape("'full', 'sum' or 'interval:<k>'")):
        LogSettings(retention=retention)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SelectionSettings().fraction = 0.5  # type: ignore[misc]


# a damaged answer


def test_the_docstring_check_notices_a_field_without_a_line() -> None:
    class Undescribed(TrainSettings):
        """No line for its field."""

        extra_steps: int = 0

    with pytest.raises(AssertionError):
        test_every_field_has_its_line_in_the_docstring(Undescribed)
