"""The keys as they are documented: each has a meaning, and what is generated from them is not stale."""

import tomllib
from pathlib import Path

import pytest

from app.config import reference
from app.config.run_config import RunConfig
from strategies.registry import all_traits
from unlearning.registry import names, settings_of

ROOT = Path(__file__).parents[3]


def test_every_key_has_a_meaning_and_its_default() -> None:
    keys = reference.all_keys()
    general = RunConfig().to_flat()
    own = {key.key: key.default for key in keys if key.key not in general}
    assert {key.key: key.default for key in keys} == general | own
    assert {key.rpartition(".")[0] for key in own} == {
        f"forget.{name}" for name in names() if settings_of(name).model_fields
    }
    assert RunConfig.from_flat(general | own) == RunConfig()
    assert all(key.meaning.endswith(".") and key.allowed for key in keys)


def test_keys_of_an_algorithm_say_whose_they_are() -> None:
    known = {key.key: key for key in reference.all_keys()}
    for traits in all_traits():
        for key in traits.keys:
            assert any(traits.shown_name in words for words in known[key].only_with), key


def test_what_is_in_the_repository_is_what_would_be_written() -> None:
    assert len(reference.generated(ROOT)) == 3
    for path, text in reference.generated(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run make generate"


def test_a_manifest_is_made_whole_again_and_the_rest_of_it_stays() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    spoilt = text.replace("run.rounds = 15\n", "").replace('data.name = "digits"', 'data.name = "mnist"')
    assert spoilt != text
    assert reference.manifest(spoilt) == text
    assert tomllib.loads(text)["tool"]["flwr"]["app"]["config"]["run"]["rounds"] == 15


def test_stale_files_are_named_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in reference.MANIFESTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("run.rounds = 15", "run.rounds = 3"), encoding="utf-8")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert reference.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{name}: stale; run make generate" for name in (*reference.MANIFESTS, reference.PAGE)
    ]
    assert (reference.main([]), reference.main(["--check"])) == (0, 0)
