"""One flat run config, whatever its source, and one line for whatever is wrong with it."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from flwr.common.config import flatten_dict, fuse_dicts
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from pydantic import ValidationError

from app.config.reference import all_keys
from app.config.rules import CONDITIONS
from app.config.run_config import RunConfig, default_values, known_fields
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.registry import all_traits
from strategies.runs.home import MARKER

ROOT = Path(__file__).parents[3]
MANIFESTS = ["pyproject.toml", "pyproject-flwr.toml"]
SHIPPED_CONFIGS = sorted(
    path
    for folder in ("app", "strategies", "unlearning", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.toml")
)

CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "request.clients": st.sampled_from(["", "0", "3, hospital-a"]),
    "request.classes": st.sampled_from(["", "0", "7, 3"]),
    "run.name": st.from_regex(r"([A-Za-z0-9][A-Za-z0-9._-]{0,20})?", fullmatch=True),
    "data.public": st.sampled_from(["0", "0.25", "fashion-mnist"]),
    "data.without": st.sampled_from(["", "0", "3, hospital-a"]),
    "data.classes": st.sampled_from(["", "0, 2", "4+30, 1+32"]),
    "data.public-classes": st.sampled_from(["", "1"]),
    "run.track": st.sampled_from(["", "tensorboard", "mlflow, wandb"]),
    "run.vectorise": st.sampled_from(["off", "auto", "2", "64"]),
    "task.class-weights": st.sampled_from(["", "0=0.5, 3=2"]),
    "task.metrics": st.sampled_from(["auto", "none", "f1, auroc"]),
    "model.name": st.sampled_from(["mlp", "cnn", "resnet18", "torchvision:resnet18"]),
    "model.weights": st.sampled_from(["", "a.npz"]),
    "model.batch-norm": st.sampled_from(["refuse", "group"]),
    "strategy.name": st.sampled_from(["fedavg", "fedmd", "fedprox", "flwr:FedAdam"]),
    "train.schedule-period": st.floats(0.0, 0.9),
    "train.warm-up": st.floats(0.0, 1.0),
    "strategy.models": st.sampled_from(["cnn-8-16@0.2", "mlp-4, mlp-8-8"]),
    "strategy.weights": st.sampled_from(["", "0=0.5, hospital-a=2"]),
    "strategy.work": st.sampled_from(["", "0=0.5", "0=0.5, hospital-a=1"]),
    "strategy.options": st.sampled_from(["", "eta = 0.1", "eta = 0.1, note = 'a\\b'"]),
    "strategy.keeps": st.sampled_from(["", "3=0.5"]),
    "privacy.noise-multiplier": st.sampled_from([-1.0, 0.0, 1.5]),
    "privacy.threshold": st.floats(0.67, 1.0),
    "privacy.budgets": st.sampled_from(["", "3=0.5, hospital-a=0"]),
    "compression.codec": st.sampled_from(["none", "identity", "top-k+int8", "low-rank", "random-k", "sign"]),
    "compression.down-codec": st.sampled_from(["identity", "top-k+int4", "low-rank+int8"]),
    "selection.speeds": st.sampled_from(["none", "equal", "lognormal:1.5", "pareto:1"]),
    "log.retention": st.sampled_from(["full", "sum", "interval:3"]),
    "audit.vectorise": st.sampled_from(["", "off", "auto", "16"]),
    "audit.rounding": st.sampled_from(["", "8", "8, 4"]),
    "audit.shadows": st.sampled_from([0, 3, 16]),
    "attack.clients": st.sampled_from(["", "0", "0, hospital-a"]),
    "hard.clients": st.sampled_from(["", "1", "1, hospital-b"]),
    "data.own-classes": st.sampled_from(["", "1=0", "5=8+9, 7=3"]),
    "forget.method": st.just("fast-distill"),
    "forget.l1-sparse.gamma": st.sampled_from(["auto", 0.0, 0.01]),
    "forget.ssd.alpha": st.sampled_from(["auto", 0.0, 3.0]),
    "forget.fast-distill.skew-alpha": st.sampled_from(["auto", 0.0, 0.07]),
    "forget.negate.layers": st.sampled_from(["", "0", "conv1, head"]),
    "forget.influence.alphas": st.sampled_from(["1", "0.5, 1, 20"]),
}
ANY_TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


def shipped(manifest: str) -> dict[str, Scalar]:
    """Return the config of a manifest exactly as Flower flattens it."""
    document = tomllib.loads((ROOT / manifest).read_text(encoding="utf-8"))
    return dict(flatten_dict(document["tool"]["flwr"]["app"]["config"]))


def values_of(key: str) -> st.SearchStrategy[Any]:
    """Return generated values that a key accepts by itself."""
    return CHOICES[key] if key in CHOICES else values_in_bounds(key)


def values_in_bounds(key: str) -> st.SearchStrategy[Any]:
    """Return generated values of a key's type within its bounds."""
    field = known_fields()[key]
    bounds = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("gt", "ge", "lt", "le")
        if hasattr(limit, name)
    }
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if get_origin(field.annotation) is Literal:
        return st.sampled_from(get_args(field.annotation))
    if field.annotation is bool:
        return st.booleans()
    if field.annotation is int:
        return st.integers(low, high or 10**6)
    if field.annotation is float:
        return st.floats(low, high or 1e6, exclude_min="gt" in bounds, exclude_max="lt" in bounds)
    return ANY_TEXT


def _settle_privacy(flat: dict[str, Any]) -> None:
    if str(flat["strategy.name"]).startswith(("flwr:", "fedmd")) or flat["run.federated-evaluation"]:
        flat["privacy.unit"] = "none"
    if flat["privacy.unit"] != "none":
        flat["data.scale"] = "none"
    flat["privacy.epsilon"] = flat["privacy.epsilon"] + 0.1 if flat["privacy.noise-multiplier"] else 0.0


def _settle_encryption(flat: dict[str, Any]) -> None:
    """Draw mostly configs without it, and those with it for what it can be combined with."""
    summed = flat["strategy.name"] in {"fedavg", "fedprox"} and flat["privacy.unit"] == "none"
    if not summed or flat["compression.codec"] != "none" or flat["run.federated-evaluation"]:
        flat["privacy.encryption"] = "none"
    elif flat["privacy.encryption"] != "none":
        flat |= {"log.enabled": False, "selection.method": "uniform", "data.clients": 0}


def _settle_secure(flat: dict[str, Any]) -> None:
    summed = flat["strategy.name"] in {"fedavg", "fedprox"} and flat["privacy.unit"] != "example"
    if not summed or flat["compression.codec"] != "none" or flat["run.federated-evaluation"]:
        flat["privacy.secure-aggregation"] = False
    elif flat["privacy.secure-aggregation"]:
        flat |= {"log.enabled": False, "privacy.encryption": "none", "selection.method": "uniform"}
        flat |= {"selection.over-selection": 1.0, "selection.speeds": "none", "data.clients": 0}


def _settle_analytics(flat: dict[str, Any]) -> None:
    flat |= {"analytics.low": -1.0, "analytics.high": 2.5}
    of_others = flat["task.name"] not in {"auto", "regression"}
    if of_others or flat["task.scale"] or flat["privacy.unit"] not in {"none", "example"}:
        flat["task.scale-from"] = "server"
    if flat["task.scale-from"] == "server":
        flat["task.scale-range"] = default_values()["task.scale-range"]
    of_targets = flat["task.scale-from"] == "federated"
    if flat["privacy.unit"] not in {"none", "example"}:
        flat["analytics.enabled"] = False
    if (flat["analytics.enabled"] or of_targets) and flat["privacy.unit"] == "example":
        flat["analytics.epsilon"] = flat["privacy.epsilon"] / 2 or 1.0
    if flat["run.workflow"] != "analytics" and not flat["analytics.enabled"] and not of_targets:
        flat["analytics.epsilon"] = default_values()["analytics.epsilon"]
        if flat["data.scale"] != "federated":
            flat["analytics.min-clients"] = default_values()["analytics.min-clients"]
    if flat["data.clients"] < flat["analytics.min-clients"]:
        flat["data.clients"] = 0


def _settle_data(flat: dict[str, Any]) -> None:
    if flat["strategy.name"] == "fedmd" and flat["data.scale"] == "federated":
        flat["data.scale"] = "none"
    if flat["data.folder-of-clients"]:
        flat["data.path"] = ""
        flat["data.scale"] = "none" if flat["data.scale"] == "standard" else flat["data.scale"]


def _settle_compression(flat: dict[str, Any]) -> None:
    if flat["strategy.name"] in {"fedmd", "pruned-dp"}:
        flat["compression.codec"] = "none"
    if not any("low-rank" in str(flat[f"compression.{key}"]) for key in ("codec", "down-codec")):
        flat["compression.rank"] = 4
    if flat["privacy.unit"] != "none":
        flat["compression.upload-threshold"] = 0.0
        flat["compression.error-feedback"] = flat["privacy.unit"] != "client-central"


def _settle_local_test(flat: dict[str, Any]) -> None:
    if flat["strategy.name"] == "fedmd":
        flat["data.local-test-share"] = 0.0
    elif flat["run.federated-evaluation"]:
        flat["data.local-test-share"] = max(flat["data.local-test-share"], 0.1)


def _settle_fedmd(flat: dict[str, Any]) -> None:
    if flat["privacy.unit"] == "none" and not flat["strategy.logit-noise"]:
        flat["privacy.randomness"] = "secret"
    if flat["strategy.name"] == "fedmd":
        flat |= {"data.public": "0.25", "log.retention": "full", "data.public-classes": ""}
        flat |= {"data.public-labels": "none", "data.public-limit": 0}


def _settle_one_shot(flat: dict[str, Any]) -> None:
    if flat["strategy.name"] == "one-shot":
        flat |= {"run.rounds": 1, "data.public": "0.25", "data.public-classes": ""}
        flat |= {"data.public-labels": "none", "data.public-limit": 0}


def _settle_judging(flat: dict[str, Scalar]) -> None:
    """Rounds are judged with a validation share only, and by a figure only if something depends on it."""
    if flat["model.batch-norm"] == "local":
        flat["data.validation-share"] = 0.0
    if not flat["data.validation-share"]:
        flat |= {"run.keep": "last", "run.stop": 0}
    if flat["run.keep"] == "last" and not flat["run.stop"]:
        flat["run.keep-by"] = ""


@st.composite
def flat_configs(draw: st.DrawFn) -> dict[str, Scalar]:
    """Draw every key, then give back their defaults to the keys that would have no effect."""
    flat = {key: draw(values_of(key), label=key) for key in known_fields()}
    if flat["attack.kind"] == "backdoor" and not flat["attack.clients"]:
        flat["attack.kind"] = "none"
    if not flat["hard.clients"]:
        flat["hard.kind"] = "none"
    if not flat["request.run"]:
        flat["run.workflow"] = "train"
    _settle_privacy(flat)
    _settle_compression(flat)
    _settle_encryption(flat)
    _settle_secure(flat)
    _settle_data(flat)
    _settle_analytics(flat)
    for condition in CONDITIONS:
        if not condition.holds(flat[condition.on]):
            flat |= {key: default_values()[key] for key in condition.keys}
    _settle_fedmd(flat)
    _settle_one_shot(flat)
    _settle_local_test(flat)
    _settle_judging(flat)
    if flat["strategy.name"] == "coded-gd":
        flat |= {"data.path": "", "strategy.stragglers": 0}
    if flat["data.clients"]:
        flat["train.isolation"] = min(flat["train.isolation"], flat["data.clients"])
        flat["data.without"] = "0" if flat["data.without"] and flat["data.clients"] > 1 else ""
        staying = flat["data.clients"] - len(flat["data.without"])
        flat["selection.min-clients"] = min(flat["selection.min-clients"], staying)
    return flat


# by hand


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    """seed: override 3 over file 2; rounds: file 4; batch-size: untouched."""
    path = tmp_path / "config.toml"
    path.write_text('train.learning-rate = 1\n[run]\nseed = 2\nrounds = 4\nname = "first"\n')
    config = RunConfig.resolve(path, ["run.seed=3"])
    assert (config.run.seed, config.run.rounds, config.train.learning_rate) == (3, 4, 1.0)
    assert config.train.batch_size == RunConfig().train.batch_size


def test_a_file_is_judged_together_with_the_overrides(tmp_path: Path) -> None:
    """alpha alone would have no effect; the override that turns Dirichlet on makes the whole right."""
    path = tmp_path / "config.toml"
    path.write_text("data.alpha = 0.1\n")
    with pytest.raises(BadInput, match=re.escape("data.alpha")):
        RunConfig.from_toml(path)
    assert RunConfig.resolve(path, ["data.partition=dirichlet"]).data.alpha == 0.1


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("run.seed=7", "run.seed", 7),
        (" run.seed = 7 ", "run.seed", 7),
        ("data.download=true", "data.download", True),
        ("train.learning-rate=1e-3", "train.learning-rate", 0.001),
        ("train.learning-rate=1", "train.learning-rate", 1.0),
        ("model.name=mlp", "model.name", "mlp"),
        ("model.name='mlp'", "model.name", "mlp"),
        ('model.name="mlp"', "model.name", "mlp"),
        ("run.name=5", "run.name", "5"),
        ("run.name=2024-01-01", "run.name", "2024-01-01"),
        ("run.name=true", "run.name", "true"),
        ("data.public=0.25", "data.public", "0.25"),
        ("data.root=/data/a=b", "data.root", "/data/a=b"),
        ("data.root=", "data.root", ""),
        ("data.root='\\x'", "data.root", "\\x"),
        ("data.root=1\nb = 2", "data.root", "1\nb = 2"),
    ],
)
def test_overrides_by_hand(override: str, key: str, value: Scalar) -> None:
    assert RunConfig().with_overrides([override]).to_flat()[key] == value


def test_a_retired_key_is_read_over_in_a_run_s_own_config_alone(tmp_path: Path) -> None:
    """A run of an earlier version keeps its config; whoever writes one today is told."""
    path = tmp_path / "config.toml"
    path.write_text("run.rounds = 3\naudit.mia-c = 1.0\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"audit\.mia-c: unknown key, given 1\.0"):
        RunConfig.from_toml(path)
    (tmp_path / MARKER).touch()
    assert RunConfig.from_toml(path).run.rounds == 3
    path.write_text("run.rounds = 3\naudit.mia-d = 1.0\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"audit\.mia-d: unknown key"):
        RunConfig.from_toml(path)


def test_of_two_overrides_of_a_key_the_last_wins() -> None:
    assert RunConfig().with_overrides(["run.seed=1", "run.seed=2"]).run.seed == 2


def test_the_original_is_left_alone() -> None:
    config = RunConfig()
    config.with_overrides(["run.seed=7"])
    assert config == RunConfig()


# what is shipped


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_holds_every_key_at_its_default(manifest: str) -> None:
    in_manifest, defaults = shipped(manifest), {key.key: key.default for key in all_keys()}
    assert list(in_manifest.items()) == list(defaults.items())
    assert [type(value) for value in in_manifest.values()] == [type(value) for value in defaults.values()]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_flower_overrides_a_manifest(manifest: str) -> None:
    """`flwr run --run-config "train.learning-rate=1 strategy.name='fedprox'"`."""
    fused = fuse_dicts(shipped(manifest), {"train.learning-rate": 1, "strategy.name": "fedprox"})
    config = RunConfig.from_flat(fused)
    assert (config.train.learning_rate, config.strategy.name) == (1.0, "fedprox")


def test_every_shipped_config_parses() -> None:
    assert len(SHIPPED_CONFIGS) == 3
    for path in SHIPPED_CONFIGS:
        RunConfig.from_toml(path)


# properties

UNHURRIED = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
"""A config has some 150 keys to draw; on a busy machine that takes long."""


@UNHURRIED
@given(flat_configs())
def test_to_flat_undoes_from_flat(flat: dict[str, Scalar]) -> None:
    again = RunConfig.from_flat(flat).to_flat()
    assert list(again.items()) == list(flat.items())
    assert all(isinstance(value, int | float | str) for value in again.values())


@UNHURRIED
@given(flat_configs())
def test_toml_is_read_back(tmp_path_factory: pytest.TempPathFactory, flat: dict[str, Scalar]) -> None:
    config = RunConfig.from_flat(flat)
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert RunConfig.from_toml(path) == config


@given(st.dictionaries(st.sampled_from(sorted(known_fields())), st.integers()))
def test_keys_that_are_not_given_keep_their_defaults(flat: dict[str, Scalar]) -> None:
    for key in flat.keys() & {"run.seed", "run.rounds", "train.batch-size"}:
        config = RunConfig.from_flat({key: abs(int(flat[key])) % 100 + 1})
        assert config.to_flat() == default_values() | {key: abs(int(flat[key])) % 100 + 1}


@given(
    ANY_TEXT.filter(lambda key: key not in known_fields()),
    st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers())),
)
def test_an_unknown_key_is_refused_in_one_line(key: str, value: Any) -> None:
    assume(key not in known_fields())
    with pytest.raises(BadInput) as refused:
        RunConfig.from_flat({key: value})
    assert "unknown key" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


# errors


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.local-step", 1, "train.local-step: unknown key, given 1; did you mean 'train.local-steps'?"),
        (
            "model.initial",
            "a",
            'model.initial: unknown key, given "a"; known keys: model.name, model.weights, '
            "model.batch-norm, model.width, model.hidden",
        ),
        (
            "train.local_steps",
            1,
            "train.local_steps: unknown key, given 1; did you mean 'train.local-steps'?",
        ),
        ("train.batch-size", True, "train.batch-size: given true, allowed an integer >= 1"),
        ("train.batch-size", "abc", 'train.batch-size: given "abc", allowed an integer >= 1'),
        ("train.batch-size", 1.5, "train.batch-size: given 1.5, allowed an integer >= 1"),
        ("train.batch-size", 0, "train.batch-size: given 0, allowed an integer >= 1"),
        ("train.learning-rate", "abc", 'train.learning-rate: given "abc", allowed a number > 0'),
        ("selection.fraction", 1.5, "selection.fraction: given 1.5, allowed a number > 0 and <= 1"),
        ("data.download", 1, "data.download: given 1, allowed true or false"),
        ("run.device", "gpu", 'run.device: given "gpu", allowed one of cpu, cuda, auto'),
        ("run.name", 5, "run.name: given 5, allowed text"),
        ("run.home", "", 'run.home: given "", allowed text that is not empty'),
        ("run.seed", [1], "run.seed: given [1], allowed an integer >= 0 and <= 9223372036854775807"),
        (
            "data.public",
            1.5,
            "data.public: given 1.5, allowed a share in [0, 1) or the name of a data set",
        ),
        (
            "log.retention",
            "interval:0",
            'log.retention: given "interval:0", '
            "allowed 'full', 'sum' or 'interval:<k>' with an integer k >= 1",
        ),
        (
            "strategy.name",
            "fedprx",
            'strategy.name: given "fedprx", '
            f"allowed {', '.join(sorted(traits.shown_name for traits in all_traits()))}; "
            "did you mean 'fedprox'?",
        ),
    ],
)
def test_a_message_names_the_key_what_was_given_and_what_is_allowed(
    key: str, value: Any, message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        RunConfig.from_flat({key: value})
    assert str(refused.value) == message


def test_a_key_without_a_near_one_lists_what_there_is() -> None:
    with pytest.raises(BadInput, match=re.escape("known keys: selection.fraction, selection.min-clients")):
        RunConfig.from_flat({"selection.q": 1})
    with pytest.raises(BadInput, match=re.escape("known sections: run, data, model, task, train, strategy,")):
        RunConfig.from_flat({"q": 1})


@pytest.mark.parametrize("override", ["run.seed", "", "run.seed:1"])
def test_an_override_needs_an_equals_sign(override: str) -> None:
    with pytest.raises(BadInput, match=re.escape("has no '=', allowed is section.key=value")):
        RunConfig().with_overrides([override])


@pytest.mark.parametrize(
    "override", ["train.batch-size=1.5", "train.batch-size=many", "train.batch-size=[1]"]
)
def test_an_override_is_checked_like_a_file(override: str) -> None:
    with pytest.raises(BadInput, match="allowed an integer >= 1"):
        RunConfig().with_overrides([override])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"run.seed = ", "not a TOML file"),
        (b"\xff", "not a TOML file"),
        (b"[run.seed]\nvalue = 1", "run.seed.value: unknown key"),
        (b"seed = 1", "seed: unknown key"),
        (b"run.seed = 2024-01-01", 'run.seed: given "2024-01-01"'),
    ],
)
def test_a_file_that_is_no_run_config(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(complaint)):
        RunConfig.from_toml(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_as_any_editor_saves_it(tmp_path: Path, encoding: str) -> None:
    """Windows' own editors put a mark before the text and end lines with two characters."""
    path = tmp_path / "config.toml"
    path.write_bytes('[run]\r\nseed = 3\r\nname = "a"\r\n'.encode(encoding))
    assert RunConfig.from_toml(path).run.seed == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=re.escape("absent.toml: cannot be read: No such file or directory")):
        RunConfig.from_toml(tmp_path / "absent.toml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().run = RunConfig().run  # type: ignore[misc]


# damaged answers


@pytest.mark.parametrize("damage", [{"run.seed": 1}, {"run.seed": 0.0}, {"run.extra": 0}])
def test_the_manifest_check_notices(damage: dict[str, Scalar], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.shipped", lambda manifest: default_values() | damage)
    with pytest.raises(AssertionError):
        test_a_manifest_holds_every_key_at_its_default("pyproject.toml")


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("forget.distill.temprature", "did you mean 'forget.distill.temperature'?"),
        ("forget.distil.temperature", "did you mean 'forget.distill.temperature'?"),
        ("forget.gamma", "each method has its own; known keys: forget.l1-sparse.gamma"),
        ("forget.novel.x", "known keys: forget.method, forget.prune"),
    ],
)
def test_a_key_of_a_method_that_is_not_known_is_told_from_those_that_are(key: str, advice: str) -> None:
    with pytest.raises(BadInput, match=re.escape(advice)):
        RunConfig.from_flat({key: 1})


def test_a_finished_run_of_version_0_1_keeps_its_settings(tmp_path: Path) -> None:
    """Its flat keys go to the methods that read them; elsewhere such a key is refused."""
    old = tmp_path / "config.toml"
    old.write_text('[forget]\nmethod = "distill"\nepochs = 3\nlearning-rate = 0.0\nratio = 0.5\n')
    with pytest.raises(BadInput, match=r"forget\.epochs: unknown key"):
        RunConfig.from_toml(old)
    (tmp_path / MARKER).touch()
    assert RunConfig.from_toml(old).to_flat()["forget.distill.epochs"] == 3
    assert "forget.federaser.ratio" not in RunConfig.from_toml(old).to_flat()
