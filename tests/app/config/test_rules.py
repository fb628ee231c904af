"""app/config/rules.py: keys that contradict each other, and names that nothing answers to."""

import re

import pytest

from app.config.names import check_method_name, check_strategy_name, nearest_key
from app.config.run_config import RunConfig, default_values
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar

KNOWN = ["train.local-epochs", "train.local-steps", "train.batch-size", "forget.sparsity", "forget.prune"]
FEDMD: dict[str, Scalar] = {
    "models": "mlp-8",
    "alignment": 10,
    "consensus": "confidence",
    "weights": "0=2",
    "public-epochs": 1,
    "public-batch-size": 1,
    "private-epochs": 1,
    "private-batch-size": 1,
    "digest-loss": "kl",
    "digest-temperature": 2.0,
    "digest-epochs": 2,
    "digest-batch-size": 1,
    "revisit-epochs": 1,
    "revisit-batch-size": 1,
    "step-size": 0.1,
    "logit-clip": 1.0,
    "logit-noise": 1.0,
    "logit-delta": 0.1,
    "upper-bound": True,
    "keep-transferred": True,
}
FOR_ONE_MODEL: dict[str, Scalar] = {
    "run.keep": "best",
    "run.stop": 2,
    "data.validation-share": 0.2,
    "model.name": "mlp",
    "model.weights": "a.npz",
    "model.batch-norm": "group",
    "model.width": 8,
    "model.hidden": 8,
    "train.optimizer": "adam",
    "train.learning-rate": 0.5,
    "train.momentum": 0.5,
    "train.weight-decay": 0.5,
    "train.batch-size": 8,
    "train.local-epochs": 3,
    "train.local-steps": 2,
    "train.lr-decay": 0.5,
    "run.federated-evaluation": True,
    "forget.prune": "omp",
    "privacy.unit": "example",
    "compression.codec": "sign",
}
COMPRESSED: dict[str, Scalar] = {
    "down-codec": "sign",
    "keep": 0.5,
    "down-keep": 0.5,
    "rank": 2,
    "error-feedback": False,
    "upload-threshold": 0.1,
    "upload-accuracy": 50.0,
}
PRIVATE = 'privacy.unit = "example" or "client-local" or "client-central"'
ASYNC = 'strategy.name = "fedasync" or "fedbuff"'
HINGE = {"strategy.name": "fedbuff", "strategy.staleness": "hinge"}
IDLE = [
    ({"strategy.concurrency": 2}, "strategy.concurrency", ASYNC),
    ({"strategy.max-staleness": 2}, "strategy.max-staleness", ASYNC),
    ({"strategy.staleness": "hinge"}, "strategy.staleness", ASYNC),
    ({"strategy.staleness-exponent": 1.0}, "strategy.staleness-exponent", ASYNC),
    ({"strategy.hinge-slope": 1.0}, "strategy.hinge-slope", ASYNC),
    ({"strategy.hinge-start": 1}, "strategy.hinge-start", ASYNC),
    (
        HINGE | {"strategy.staleness-exponent": 1.0},
        "strategy.staleness-exponent",
        'strategy.staleness = "polynomial"',
    ),
    (
        {"strategy.name": "fedbuff", "strategy.hinge-slope": 1.0},
        "strategy.hinge-slope",
        'strategy.staleness = "hinge"',
    ),
    (
        {"strategy.name": "fedbuff", "strategy.hinge-start": 1},
        "strategy.hinge-start",
        'strategy.staleness = "hinge"',
    ),
    (
        {"strategy.name": "fedbuff", "strategy.mixing": 1.0},
        "strategy.mixing",
        'strategy.name = "fedasync"',
    ),
    (
        {"strategy.name": "fedasync", "strategy.buffer-size": 2},
        "strategy.buffer-size",
        'strategy.name = "fedbuff"',
    ),
    (
        {"strategy.name": "fedasync", "strategy.server-learning-rate": 0.5},
        "strategy.server-learning-rate",
        'strategy.name = "fedavgm" or "fedbuff"',
    ),
    *(
        ({"strategy.name": "fedbuff", **flat}, key, "a strategy that works in rounds")
        for key, flat in {
            "selection.fraction": {"selection.fraction": 0.5},
            "selection.over-selection": {"selection.over-selection": 2.0},
            "selection.deadline": {"selection.speeds": "equal", "selection.deadline": 2.0},
            "privacy.unit": {"privacy.unit": "example"},
        }.items()
    ),
    *(({f"strategy.{key}": v}, f"strategy.{key}", 'strategy.name = "fedmd"') for key, v in FEDMD.items()),
    *(
        ({"strategy.name": "fedmd", key: v}, key, "a strategy that trains one model for all")
        for key, v in FOR_ONE_MODEL.items()
    ),
    (
        {"strategy.name": "fedmd", "strategy.weights": "0=2"},
        "strategy.weights",
        'strategy.consensus = "weighted"',
    ),
    (
        {"strategy.name": "fedmd", "strategy.digest-temperature": 2.0},
        "strategy.digest-temperature",
        'strategy.digest-loss = "kl"',
    ),
    (
        {"strategy.name": "fedmd", "strategy.logit-noise": 1.0},
        "strategy.logit-noise",
        "strategy.logit-clip above 0",
    ),
    ({"strategy.name": "fedmd", "strategy.logit-delta": 0.1}, "strategy.logit-delta", "noise above 0"),
    ({"data.public-classes": "1"}, "data.public-classes", "data.public = <the name of a data set>"),
    ({"data.public-labels": "own"}, "data.public-labels", "data.public = <the name of a data set>"),
    ({"data.public-limit": 5}, "data.public-limit", "data.public = <the name of a data set>"),
    ({"model.name": "mlp", "model.width": 8}, "model.width", 'model.name = "cnn"'),
    ({"model.name": "resnet18", "model.hidden": 8}, "model.hidden", 'model.name = "mlp" or "cnn"'),
    ({"strategy.mu": 0.5}, "strategy.mu", 'strategy.name = "fedprox"'),
    ({"strategy.work": "0=0.5"}, "strategy.work", 'strategy.name = "fedprox"'),
    ({"strategy.options": "eta = 1"}, "strategy.options", 'strategy.name = "flwr:<ClassName>"'),
    ({"strategy.keep": 0.25}, "strategy.keep", 'strategy.name = "pruned-dp"'),
    ({"strategy.keeps": "3=0.2"}, "strategy.keeps", 'strategy.name = "pruned-dp"'),
    ({"strategy.score": "random"}, "strategy.score", 'strategy.name = "pruned-dp"'),
    ({"strategy.score-source": "private"}, "strategy.score-source", 'strategy.name = "pruned-dp"'),
    ({"strategy.refresh": 2}, "strategy.refresh", 'strategy.name = "pruned-dp"'),
    ({"strategy.score-noise": 2.0}, "strategy.score-noise", 'strategy.name = "pruned-dp"'),
    ({"strategy.score-clip": 2.0}, "strategy.score-clip", 'strategy.name = "pruned-dp"'),
    (
        {"strategy.name": "pruned-dp", "strategy.score": "random", "strategy.score-source": "global-model"},
        "strategy.score-source",
        'strategy.score = "fisher"',
    ),
    *(
        (
            {"strategy.name": "pruned-dp", f"strategy.{key}": 2.0},
            f"strategy.{key}",
            'strategy.score-source = "private"',
        )
        for key in ("score-noise", "score-clip")
    ),
    *(
        ({f"privacy.{name}": value}, f"privacy.{name}", PRIVATE)
        for name, value in {
            "epsilon": 2.0,
            "delta": 1e-6,
            "noise-multiplier": 1.0,
            "clip-norm": 2.0,
            "accountant": "rdp",
            "budgets": "3=1",
            "client-sampling": "poisson",
            "ledger": "spent",
        }.items()
    ),
    (
        {"privacy.unit": "example", "privacy.epsilon": 2.0, "privacy.client-sampling": "poisson"},
        "privacy.client-sampling",
        'privacy.unit = "client-central"',
    ),
    ({"privacy.engine": "ghost"}, "privacy.engine", 'privacy.unit = "example"'),
    (
        {"privacy.unit": "client-central", "privacy.epsilon": 2.0, "privacy.ledger": "spent"},
        "privacy.ledger",
        'privacy.unit = "example" or "client-local"',
    ),
    ({"privacy.encryption-key": "k"}, "privacy.encryption-key", 'privacy.encryption = "ckks"'),
    ({"privacy.threshold": 0.8}, "privacy.threshold", "privacy.secure-aggregation = true"),
    ({"privacy.max-examples": 10}, "privacy.max-examples", "privacy.secure-aggregation = true"),
    (
        {
            "privacy.secure-aggregation": True,
            "log.enabled": False,
            "privacy.unit": "client-local",
            "privacy.epsilon": 2.0,
            "privacy.max-examples": 10,
        },
        "privacy.max-examples",
        'privacy.unit = "none"',
    ),
    *(
        ({f"compression.{name}": value}, f"compression.{name}", 'compression.codec other than "none"')
        for name, value in COMPRESSED.items()
    ),
    (
        {"compression.codec": "int8", "compression.keep": 0.5},
        "compression.keep",
        'compression.codec = "top-k" or "random-k", alone or in a chain',
    ),
    (
        {"compression.codec": "top-k", "compression.down-keep": 0.5},
        "compression.down-keep",
        'compression.down-codec = "top-k" or "random-k", alone or in a chain',
    ),
    (
        {"compression.codec": "top-k", "compression.upload-accuracy": 50.0},
        "compression.upload-accuracy",
        "compression.upload-threshold above 0",
    ),
    *(
        (
            {"privacy.unit": "example", "privacy.epsilon": 2.0, f"selection.{key}": value},
            f"selection.{key}",
            'privacy.unit = "none"',
        )
        for key, value in {"method": "oort", "over-selection": 2.0, "speeds": "equal"}.items()
    ),
    (
        {"strategy.name": "fedmd", "selection.method": "oort"},
        "selection.method",
        "a strategy that trains one model for all",
    ),
    ({"selection.candidates": 3}, "selection.candidates", 'selection.method = "power-of-choice"'),
    ({"selection.explore": 0.5}, "selection.explore", 'selection.method = "oort"'),
    ({"selection.budget": 2}, "selection.budget", 'selection.method = "budgeted"'),
    ({"selection.deadline": 2.0}, "selection.deadline", 'selection.speeds other than "none"'),
    ({"data.alpha": 0.1}, "data.alpha", 'data.partition = "dirichlet"'),
    ({"data.scale-range": 10.0}, "data.scale-range", 'data.scale = "federated"'),
    ({"task.scale-range": 10.0}, "task.scale-range", 'task.scale-from = "federated"'),
    ({"task.scale-from": "federated", "task.scale": 2.0}, "task.scale-from", "task.scale = 0.0"),
    ({"data.shards-per-client": 3}, "data.shards-per-client", 'data.partition = "shards"'),
    ({"data.classes-per-client": 3}, "data.classes-per-client", 'data.partition = "pathological"'),
    ({"attack.clients": "0"}, "attack.clients", 'attack.kind = "backdoor"'),
    ({"attack.share": 0.5}, "attack.share", 'attack.kind = "backdoor"'),
    ({"attack.target": 1}, "attack.target", 'attack.kind = "backdoor"'),
    ({"hard.clients": "0"}, "hard.clients", 'hard.kind = "mislabelled"'),
    ({"hard.examples": 5}, "hard.examples", 'hard.kind = "mislabelled"'),
    ({"log.enabled": False, "log.retention": "sum"}, "log.retention", "log.enabled = true"),
    ({"log.enabled": False, "log.dtype": "float16"}, "log.dtype", "log.enabled = true"),
    ({"log.enabled": False, "log.encrypted": True}, "log.encrypted", "log.enabled = true"),
    ({"log.keys": "/keys"}, "log.keys", "log.encrypted = true"),
    (
        {"log.retention": "sum", "log.dtype": "float16"},
        "log.dtype",
        'log.retention = "full" or "interval:<k>"',
    ),
    ({"request.run": "first"}, "request.run", 'run.workflow = "resume" or "continue" or "forget"'),
    ({"request.clients": "3"}, "request.clients", 'run.workflow = "forget" or "audit"'),
    ({"request.classes": "7"}, "request.classes", 'run.workflow = "forget" or "audit"'),
    ({"request.samples": "s.json"}, "request.samples", 'run.workflow = "forget" or "audit"'),
    ({"request.after": "client-3-distill"}, "request.after", 'run.workflow = "continue" or "forget"'),
    ({"request.rounds": 3}, "request.rounds", 'run.workflow = "continue"'),
    ({"forget.sparsity": 0.5}, "forget.sparsity", 'forget.prune = "omp" or "synflow" or "imp"'),
    (
        {"forget.prune": "omp", "forget.prune-iterations": 5},
        "forget.prune-iterations",
        'forget.prune = "synflow"',
    ),
    (
        {"forget.prune": "omp", "forget.prune-round-share": 0.5},
        "forget.prune-round-share",
        'forget.prune = "imp"',
    ),
]


# by hand


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("train.local-step", "train.local-steps"),
        ("train.local_steps", "train.local-steps"),
        ("train.epochs", "train.local-epochs"),
        ("forget.sparse", "forget.sparsity"),
        ("trian.batch-size", "train.batch-size"),
        ("batch-size", "train.batch-size"),
        ("train.lr", None),
        ("model.initial", None),
        ("model.interval", None),
        ("optim.batch-size", None),
        ("", None),
    ],
)
def test_the_key_that_was_meant(given: str, meant: str | None) -> None:
    assert nearest_key(given, KNOWN) == meant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1e-3, "0.001"),
        ("é", '"é"'),
        ("a\nb", '"a\\nb"'),
        ("\u2028", '"\\u2028"'),
        ([1], "[1]"),
    ],
)
def test_a_value_is_shown_on_one_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_the_default_names_exist() -> None:
    check_strategy_name("fedavg")
    check_method_name("distill")
    assert (RunConfig().strategy.name, RunConfig().forget.method) == ("fedavg", "auto")


# properties


@pytest.mark.parametrize(("flat", "key", "needs"), IDLE, ids=[key for _, key, _ in IDLE])
def test_an_idle_key_at_its_default_is_no_contradiction(
    flat: dict[str, Scalar], key: str, needs: str
) -> None:
    """Flower passes every key, so a key at its default says nothing about what the user wrote."""
    without = {other: value for other, value in flat.items() if other != key}
    given = without | {key: default_values()[key]}
    assert RunConfig.from_flat(given) == RunConfig.from_flat(without)


# errors


def test_flowers_own_strategies_are_checked_by_class() -> None:
    assert RunConfig.from_flat({"strategy.name": "flwr:FedAdam"}).strategy.name == "flwr:FedAdam"
    with pytest.raises(BadInput, match=re.escape("did you mean 'flwr:FedAdam'?")):
        RunConfig.from_flat({"strategy.name": "flwr:FedAdm"})
    with pytest.raises(BadInput, match=re.escape('strategy.name: given "flwr:Strategy", allowed flwr:')):
        RunConfig.from_flat({"strategy.name": "flwr:Strategy"})


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=re.escape("did you mean 'distill'?")):
        RunConfig.from_flat({"forget.method": "distil"})


@pytest.mark.parametrize(("flat", "key", "needs"), IDLE, ids=[key for _, key, _ in IDLE])
def test_a_key_without_effect_is_refused(flat: dict[str, Scalar], key: str, needs: str) -> None:
    with pytest.raises(BadInput) as refused:
        RunConfig.from_flat(flat)
    assert str(refused.value).startswith(f"{key}: given ")
    assert f"which has an effect only with {needs}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_randomness_has_an_effect_with_any_noise() -> None:
    """Of updates, or of FedMD's logits."""
    seeded: dict[str, Scalar] = {"privacy.randomness": "seeded"}
    words = r"privacy\.randomness: given \"seeded\", which has an effect only with noise: a privacy\.unit, or"
    for idle in ({}, {"strategy.name": "fedmd", "strategy.logit-clip": 1.0}):
        with pytest.raises(BadInput, match=words):
            RunConfig.from_flat({**seeded, **idle})
    fedmd: dict[str, Scalar] = {
        "strategy.name": "fedmd",
        "strategy.logit-clip": 1.0,
        "strategy.logit-noise": 2.0,
    }
    for noisy in ({"privacy.unit": "example", "privacy.epsilon": 1.0}, fedmd):
        assert RunConfig.from_flat({**seeded, **noisy}).privacy.randomness == "seeded"


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (
            {"attack.kind": "backdoor"},
            'attack.clients: given "", must name at least one with attack.kind = "backdoor"',
        ),
        (
            {"run.workflow": "audit"},
            'request.run: given "", must name a run with run.workflow = "audit"',
        ),
        (
            {"data.clients": 3, "selection.min-clients": 5},
            "selection.min-clients: given 5, allowed at most data.clients, which is 3",
        ),
        (
            {"data.clients": 3, "strategy.name": "fedbuff", "strategy.buffer-size": 4},
            "strategy.buffer-size: given 4, allowed at most data.clients, which is 3: a buffer holds one "
            "update per client",
        ),
    ],
)
def test_other_contradictions(flat: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        RunConfig.from_flat(flat)
    assert str(refused.value) == message


# privacy


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"privacy.unit": "example"}, r"privacy\.epsilon: given 0, must be above 0, or"),
        (
            {"privacy.unit": "example", "privacy.epsilon": 2.0, "privacy.noise-multiplier": 0.0},
            r"privacy\.noise-multiplier: given 0, which keeps no budget",
        ),
        (
            {
                "privacy.unit": "example",
                "privacy.epsilon": 2.0,
                "run.federated-evaluation": True,
                "data.local-test-share": 0.2,
            },
            r"run\.federated-evaluation: given true, which tells the clients' accuracy",
        ),
        (
            {"privacy.unit": "client-central", "privacy.epsilon": 2.0, "strategy.name": "flwr:FedAdam"},
            r'strategy\.name: given "flwr:FedAdam", but privacy\.unit = "client-central"',
        ),
        ({"privacy.unit": "example", "privacy.delta": 1.0}, r"privacy\.delta: given 1\.0, allowed .*< 1"),
        (
            {"strategy.name": "pruned-dp", "data.public": "0"},
            r"data\.public: given 0, but pruned-dp scores neurons on public data",
        ),
        (
            {"strategy.name": "pruned-dp", "strategy.score-source": "private"},
            r"strategy\.score-noise: given 0, .* a private mask without its cost is refused",
        ),
        (
            {
                "strategy.name": "pruned-dp",
                "strategy.score-source": "private",
                "strategy.score-noise": 5.0,
                "privacy.unit": "client-central",
                "privacy.epsilon": 2.0,
            },
            r'strategy\.score-source: given "private", .* privacy\.unit is "client-central"; allowed',
        ),
        (
            {"strategy.name": "pruned-dp", "strategy.score-source": "nowhere"},
            r'strategy\.score-source: given "nowhere", allowed one of public, global-model, private',
        ),
        ({"strategy.name": "pruned-dp", "strategy.keep": 0.0}, r"strategy\.keep: given 0\.0, allowed .*> 0"),
        ({"strategy.name": "pruned-dp", "strategy.keep": 1.5}, r"strategy\.keep: given 1\.5, allowed .*<= 1"),
        (
            {"strategy.name": "pruned-dp", "forget.prune": "omp"},
            r"forget\.prune: given \"omp\", but pruned-dp trains parts of a dense model",
        ),
        (
            {
                "strategy.name": "pruned-dp",
                "privacy.unit": "client-central",
                "privacy.epsilon": 2.0,
                "privacy.client-sampling": "poisson",
            },
            r"privacy\.client-sampling: given \"poisson\", but pruned-dp divides",
        ),
        ({"privacy.unit": "examples"}, r"privacy\.unit: given \"examples\", allowed one of none, example"),
        (
            {"privacy.unit": "example", "privacy.epsilon": 2.0, "privacy.budgets": "3:2"},
            r"privacy\.budgets: given \"3:2\", allowed 'client-id=epsilon' pairs",
        ),
    ],
)
def test_privacy_that_cannot_be_had(given: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RunConfig.from_flat(given)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"strategy.name": "pruned-dp", "strategy.score": "random"}, "another part of the model"),
        ({"compression.rank": 2}, "only with low-rank"),
        (
            {"privacy.unit": "example", "privacy.epsilon": 2.0, "compression.upload-threshold": 0.1},
            "tells of its data",
        ),
        ({"privacy.unit": "client-central", "privacy.epsilon": 2.0}, "which carries what a client held back"),
    ],
)
def test_what_compression_does_not_go_with(flat: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        RunConfig.from_flat({"compression.codec": "top-k+int8", **flat})


def test_compression_goes_with_privacy_where_it_works_on_what_is_private_already() -> None:
    local = {"privacy.unit": "client-local", "privacy.epsilon": 2.0, "compression.codec": "top-k"}
    assert RunConfig.from_flat(local).compression.on
    central: dict[str, Scalar] = {
        **local,
        "privacy.unit": "client-central",
        "compression.error-feedback": False,
    }
    assert RunConfig.from_flat(central).compression.on


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"log.enabled": True}, "the server sees no single update that it could log; drop one of the two"),
        ({"run.federated-evaluation": True}, "run.federated-evaluation: given true"),
        ({"strategy.name": "flwr:FedAdam"}, 'strategy.name: given "flwr:FedAdam"'),
        ({"strategy.name": "pruned-dp"}, 'strategy.name: given "pruned-dp"'),
        ({"compression.codec": "int8"}, "encoded updates cannot be added up"),
        ({"privacy.unit": "example", "privacy.epsilon": 2.0}, "the ε of an example tells how many"),
        ({"selection.method": "oort"}, "their own loss or size"),
        ({"selection.over-selection": 1.5}, "clients that are left out count as lost"),
        ({"selection.speeds": "equal"}, "the clock needs each client's number of examples"),
        ({"privacy.threshold": 0.66}, "privacy.threshold: given 0.66, allowed a number > 2/3 and <= 1"),
    ],
)
def test_what_secure_aggregation_does_not_go_with(flat: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        RunConfig.from_flat({"privacy.secure-aggregation": True, "log.enabled": False, **flat})


def test_a_codec_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match=re.escape("compression.codec")):
        RunConfig.from_flat({"compression.codec": "top-k+gzip"})


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"data.folder-of-clients": "c", "data.path": "a.npz"},
            'data.path: given "a.npz", but data.folder-of-clients names each client\'s file; give one '
            "of the two",
        ),
        (
            {"data.folder-of-clients": "c", "data.scale": "standard"},
            'data.scale: given "standard", which takes all data in one place, but data.folder-of-clients '
            'gives each client its own; allowed "federated" or "none"',
        ),
        (
            {"strategy.name": "fedmd", "data.scale": "federated"},
            'data.scale: given "federated", but with fedmd every client holds the public data, which it '
            'would have to scale before the first sum; allowed "standard" or "none"',
        ),
        (
            {"data.scale": "federated", "data.clients": 2},
            "analytics.min-clients: given 3, allowed at most data.clients, which is 2",
        ),
        (
            {"analytics.min-clients": 2},
            "analytics.min-clients: given 2, which has an effect only with analytics.enabled = true, "
            'run.workflow = "analytics" or task.scale-from = "federated", or data.scale = "federated"',
        ),
        (
            {"task.scale-from": "federated", "privacy.unit": "example", "privacy.epsilon": 1.0},
            "analytics.epsilon: given 0, which answers the question before the training without noise, but "
            'privacy.unit is "example"; allowed above 0, and counted in every client\'s ε, or '
            'task.scale-from = "server"',
        ),
        (
            {"task.scale-from": "federated", "privacy.unit": "client-local", "privacy.epsilon": 1.0},
            'task.scale-from: given "federated", whose noise hides one example, but privacy.unit is '
            '"client-local"; allowed with "example", or "server"',
        ),
    ],
)
def test_what_data_contradict(given: dict[str, Scalar], line: str) -> None:
    """Files of clients, and a scale that nobody measures in one place."""
    with pytest.raises(BadInput) as refused:
        RunConfig.from_flat(RunConfig().to_flat() | given)
    assert str(refused.value) == line


def test_data_that_go_together() -> None:
    """Two clients are enough where the minimum says so; clients may be measured on test data of their own."""
    allowed: list[dict[str, Scalar]] = [
        {"data.scale": "federated", "data.clients": 2, "analytics.min-clients": 2},
        {"data.folder-of-clients": "c", "data.clients": 3, "run.federated-evaluation": True},
        {"run.federated-evaluation": True},
    ]
    for given in allowed:
        RunConfig.from_flat(RunConfig().to_flat() | given)
    with pytest.raises(BadInput, match=r"or clients with test data of their own$"):
        RunConfig.from_flat(RunConfig().to_flat() | {"run.federated-evaluation": True, "data.clients": 3})
