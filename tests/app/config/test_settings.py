"""app/config/settings.py: what the sections run, data, model and attack check alone."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config.settings import DataSettings, ModelSettings, RequestSettings, RunSettings
from app.config.staged import AttackSettings
from strategies.core.settings import Settings
from unlearning.settings import AuditSettings, ForgetSettings

SECTIONS = [
    RunSettings,
    DataSettings,
    ModelSettings,
    AttackSettings,
    ForgetSettings,
    AuditSettings,
    RequestSettings,
]


# by hand


@pytest.mark.parametrize(
    ("public", "share", "name"),
    [("0", 0.0, None), ("0.25", 0.25, None), ("fashion-mnist", 0.0, "fashion-mnist")],
)
def test_public_is_a_share_or_a_name(public: str, share: float, name: str | None) -> None:
    settings = DataSettings(public=public)
    assert (settings.public_share, settings.public_name) == (share, name)


@pytest.mark.parametrize(("given", "kept"), [(0, "0"), (0.25, "0.25"), (1e-3, "0.001")])
def test_public_takes_a_number(given: float, kept: str) -> None:
    assert DataSettings.model_validate({"public": given}).public == kept


def test_attackers_by_hand() -> None:
    assert AttackSettings(clients="3, hospital-a").client_ids == ("3", "hospital-a")
    assert AttackSettings.model_validate({"clients": 3}).client_ids == ("3",)
    assert AttackSettings().client_ids == ()


def test_home_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    assert RunSettings().home_path == tmp_path / "user" / ".lethe" / "runs"
    assert RunSettings(home="runs").home_path == tmp_path / "runs"


# properties


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_its_line_in_the_docstring(section: type[Settings]) -> None:
    described = re.findall(r"^    (\w+)\n        \S", section.__doc__ or "", flags=re.MULTILINE)
    assert described == list(section.model_fields)


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_pass_their_own_checks(section: type[Settings]) -> None:
    assert section.model_validate(section().model_dump()) == section()


# errors


@pytest.mark.parametrize("name", ["..", "../other", ".hidden", "a/b", "a b", "-rf", "x" * 101, "é"])
def test_a_run_name_stays_inside_its_home(name: str) -> None:
    with pytest.raises(ValidationError, match=re.escape("1 to 100 letters, digits, '.', '-', '_'")):
        RunSettings(name=name)


@pytest.mark.parametrize("public", ["", " ", "1", "1.5", "-0.1", "nan", "inf", 1, -0.5])
def test_public_refuses(public: object) -> None:
    with pytest.raises(ValidationError, match=re.escape("a share in [0, 1) or the name of a data set")):
        DataSettings.model_validate({"public": public})


@pytest.mark.parametrize("clients", ["0,", ",", "0,0"])
def test_attackers_refuse(clients: str) -> None:
    with pytest.raises(ValidationError, match="a comma-separated list without"):
        AttackSettings(clients=clients)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (DataSettings, "public", True),
        (AttackSettings, "clients", True),
        (AttackSettings, "clients", 1.5),
        (RunSettings, "name", 5),
        (RunSettings, "seed", -1),
        (RunSettings, "seed", 2**63),
        (RunSettings, "federated-evaluation", 1),
        (DataSettings, "alpha", 0.0),
        (DataSettings, "test-share", 1.0),
        (ForgetSettings, "teacher-filter", 1.0),
        (AuditSettings, "mia-draws", 9),
    ],
)
def test_wrong_type_or_out_of_range(section: type[Settings], field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        section.model_validate({field: value})
