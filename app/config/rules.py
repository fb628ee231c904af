"""What no section of the run config can check alone: keys that contradict each other, and registered names.

A key whose value would have no effect is refused when it differs from its default. Being given is not enough:
Flower passes every key of ``[tool.flwr.app.config]`` whether the user wrote it or not, and a resolved config
names them all.
"""

import difflib
from collections.abc import Iterable, Mapping

from app.analytics_rules import ANALYTICS_CONDITIONS, check_analytics
from app.config.conditions import Condition, is_number, lacks_public_data, only, refuse_changed, shown
from app.config.secure_rules import check_encrypted, check_secure
from app.strategy_rules import STRATEGY_CONDITIONS, check_strategy
from strategies.core.errors import BadInput
from strategies.settings import ASYNCHRONOUS, FLWR_PREFIX, Scalar, split_list

_ALIKE = 0.6  # what difflib takes for a close match


def _likeness(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()


def nearest_key(given: str, known: Iterable[str]) -> str | None:
    """Return the known key that was probably meant, or None when no name in its section is alike.

    A section that is misspelt is put right first. Without a section, all of them are looked through.

    >>> nearest_key("train.epochs", ["train.local-epochs", "train.momentum", "forget.epochs"])
    'train.local-epochs'
    >>> nearest_key("model.epochs", ["model.hidden", "forget.epochs"]) is None
    True
    """
    section, _, name = given.rpartition(".")
    parted = [key.partition(".") for key in known]
    meant = difflib.get_close_matches(section, {part[0] for part in parted}, n=1, cutoff=_ALIKE)
    scores = {
        f"{known_section}.{known_name}": _likeness(known_name, name)
        for known_section, _, known_name in parted
        if not section or [known_section] == meant
    }
    best = max(scores, key=lambda key: scores[key], default=None)
    return best if best is not None and scores[best] >= _ALIKE else None


_FEDMD = (
    "strategy.models strategy.alignment strategy.consensus strategy.weights strategy.public-epochs "
    "strategy.public-batch-size strategy.private-epochs strategy.private-batch-size strategy.digest-loss "
    "strategy.digest-temperature strategy.digest-epochs strategy.digest-batch-size strategy.revisit-epochs "
    "strategy.revisit-batch-size strategy.step-size strategy.logit-clip strategy.logit-noise "
    "strategy.logit-delta strategy.upper-bound strategy.keep-transferred"
)
_NOT_FEDMD = (
    "model.name model.width model.hidden train.optimizer train.learning-rate train.momentum "
    "train.weight-decay train.batch-size train.local-epochs train.local-steps train.lr-decay "
    "run.federated-evaluation forget.prune privacy.unit compression.codec"
)
_PRIVATE_KEYS = (
    "privacy.epsilon privacy.delta privacy.noise-multiplier privacy.clip-norm privacy.accountant "
    "privacy.budgets privacy.client-sampling privacy.ledger"
)

_COMPRESSED_KEYS = (
    "compression.down-codec compression.keep compression.down-keep compression.rank "
    "compression.error-feedback compression.upload-threshold compression.upload-accuracy"
)


def _needs_stage(keys: str, on: str, *stages: str) -> Condition:
    words = f"{on} = {' or '.join(shown(stage) for stage in stages)}, alone or in a chain"
    return Condition(
        tuple(keys.split()), on, lambda codec: not set(stages).isdisjoint(str(codec).split("+")), words
    )


_IN_ROUNDS = "selection.fraction selection.over-selection selection.deadline privacy.unit"

CONDITIONS = (
    only("strategy.concurrency strategy.max-staleness strategy.staleness", "strategy.name", *ASYNCHRONOUS),
    only("strategy.staleness-exponent", "strategy.staleness", "polynomial"),
    only("strategy.hinge-slope strategy.hinge-start", "strategy.staleness", "hinge"),
    only("strategy.mixing", "strategy.name", "fedasync"),
    only("strategy.buffer-size strategy.server-learning-rate", "strategy.name", "fedbuff"),
    Condition(
        tuple(_IN_ROUNDS.split()),
        "strategy.name",
        lambda name: name not in ASYNCHRONOUS,
        "a strategy that works in rounds",
    ),
    only(_FEDMD, "strategy.name", "fedmd"),
    Condition(
        tuple(_NOT_FEDMD.split()),
        "strategy.name",
        lambda name: name != "fedmd",
        "a strategy that trains one model for all",
    ),
    only("strategy.weights", "strategy.consensus", "weighted"),
    only("strategy.digest-temperature", "strategy.digest-loss", "kl"),
    Condition(
        ("strategy.logit-noise",),
        "strategy.logit-clip",
        lambda clip: float(clip) > 0,
        "strategy.logit-clip above 0, which bounds what the noise must hide",
    ),
    Condition(
        ("strategy.logit-delta",), "strategy.logit-noise", lambda noise: float(noise) > 0, "noise above 0"
    ),
    Condition(
        ("data.public-classes", "data.public-labels", "data.public-limit"),
        "data.public",
        lambda public: not is_number(str(public)),
        "data.public = <the name of a data set>",
    ),
    only("model.width", "model.name", "cnn"),
    only("model.hidden", "model.name", "mlp", "cnn"),
    only("train.local-epochs", "train.local-steps", 0),
    only("train.momentum", "train.optimizer", "sgd"),
    only("strategy.mu strategy.work", "strategy.name", "fedprox"),
    Condition(
        ("strategy.options",),
        "strategy.name",
        lambda name: str(name).startswith(FLWR_PREFIX),
        f'strategy.name = "{FLWR_PREFIX}<ClassName>"',
    ),
    only(
        "strategy.keep strategy.keeps strategy.score strategy.score-source strategy.refresh",
        "strategy.name",
        "pruned-dp",
    ),
    only("strategy.score-source", "strategy.score", "fisher"),
    only("strategy.score-noise strategy.score-clip", "strategy.score-source", "private"),
    only(_PRIVATE_KEYS, "privacy.unit", "example", "client-local", "client-central"),
    only("privacy.client-sampling", "privacy.unit", "client-central"),
    only("privacy.ledger", "privacy.unit", "example", "client-local"),
    only("privacy.encryption-key", "privacy.encryption", "ckks"),
    only("privacy.threshold privacy.max-examples", "privacy.secure-aggregation", True),
    only("privacy.max-examples", "privacy.unit", "none"),
    Condition(
        tuple(_COMPRESSED_KEYS.split()),
        "compression.codec",
        lambda codec: codec != "none",
        'compression.codec other than "none" ("identity" to leave updates as they are)',
    ),
    _needs_stage("compression.keep", "compression.codec", "top-k", "random-k"),
    _needs_stage("compression.down-keep", "compression.down-codec", "top-k", "random-k"),
    Condition(
        ("compression.upload-accuracy",),
        "compression.upload-threshold",
        lambda threshold: float(threshold) > 0,
        "compression.upload-threshold above 0",
    ),
    only("selection.method selection.over-selection selection.speeds", "privacy.unit", "none"),
    Condition(
        ("selection.method",),
        "strategy.name",
        lambda name: name != "fedmd",
        "a strategy that trains one model for all",
    ),
    only("selection.candidates", "selection.method", "power-of-choice"),
    only("selection.explore", "selection.method", "oort"),
    only("selection.budget", "selection.method", "budgeted"),
    Condition(
        ("selection.deadline",),
        "selection.speeds",
        lambda speeds: speeds != "none",
        'selection.speeds other than "none"',
    ),
    only("data.alpha", "data.partition", "dirichlet"),
    only("data.shards-per-client", "data.partition", "shards"),
    only("data.classes-per-client", "data.partition", "pathological"),
    only("attack.clients attack.share attack.target", "attack.kind", "backdoor"),
    only("log.retention log.dtype log.encrypted", "log.enabled", True),
    only("log.keys", "log.encrypted", True),
    Condition(
        ("log.dtype",),
        "log.retention",
        lambda given: given != "sum",
        'log.retention = "full" or "interval:<k>"',
    ),
    only("request.run", "run.workflow", "resume", "forget", "audit"),
    only(
        "request.clients request.classes request.samples request.after",
        "run.workflow",
        "forget",
        "audit",
    ),
    only("forget.sparsity", "forget.prune", "omp", "synflow", "imp"),
    only("forget.prune-iterations", "forget.prune", "synflow"),
    only("forget.prune-round-share", "forget.prune", "imp"),
)


def check_contradictions(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar]) -> None:
    """Refuse keys that contradict each other.

    Parameters
    ----------
    flat
        Every key of the run config.
    defaults
        Every key's default.

    Raises
    ------
    BadInput
        Naming the key, what was given and what it contradicts.
    """
    for condition in (*CONDITIONS, *STRATEGY_CONDITIONS, *ANALYTICS_CONDITIONS):
        if not condition.holds(flat[condition.on]):
            needed = f"{condition.words}, but {condition.on} is {shown(flat[condition.on])}"
            refuse_changed(condition.keys, flat, defaults, needed)
    if flat["attack.kind"] == "backdoor" and not flat["attack.clients"]:
        raise BadInput('attack.clients: given "", must name at least one with attack.kind = "backdoor"')
    if flat["strategy.name"] == "fedmd":
        _check_fedmd(flat)
    _check_randomness(flat, defaults)
    check_strategy(flat)
    check_analytics(flat, defaults)
    if flat["run.workflow"] not in {"train", "analytics"} and not flat["request.run"]:
        raise BadInput(
            f'request.run: given "", must name a run with run.workflow = {shown(flat["run.workflow"])}'
        )
    _check_sections(flat)
    _check_local_test(flat)
    if flat["strategy.name"] == "pruned-dp":
        _check_pruned(flat)
    if flat["strategy.name"] == "fedbuff":
        _check_buffer(int(flat["strategy.buffer-size"]), int(flat["data.clients"]))
    _check_cohort(flat)


def _check_sections(flat: Mapping[str, Scalar]) -> None:
    for key, check in (
        ("privacy.unit", _check_privacy),
        ("compression.codec", _check_compression),
        ("privacy.encryption", check_encrypted),
    ):
        if flat[key] != "none":
            check(flat)
    if flat["privacy.secure-aggregation"]:
        check_secure(flat)


def _check_local_test(flat: Mapping[str, Scalar]) -> None:
    share = flat["data.local-test-share"]
    if flat["run.federated-evaluation"] and not share:
        raise BadInput(
            "run.federated-evaluation: given true, but data.local-test-share is 0, and clients would be "
            "measured on what they trained on; allowed with a share above 0"
        )
    if share and flat["strategy.name"] == "fedmd":
        raise BadInput(
            f"data.local-test-share: given {share}, but fedmd measures each client's model on the test data "
            "of the data set; allowed 0"
        )


def _check_randomness(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar]) -> None:
    if flat["privacy.unit"] == "none" and not flat["strategy.logit-noise"]:
        needed = "noise: a privacy.unit, or strategy.logit-noise above 0"
        refuse_changed(("privacy.randomness",), flat, defaults, needed)


def _check_fedmd(flat: Mapping[str, Scalar]) -> None:
    public = str(flat["data.public"])
    if lacks_public_data(flat):
        raise BadInput("data.public: given 0, but fedmd needs public data: a share or the name of a data set")
    if (
        not is_number(public)
        and flat["data.public-labels"] == "none"
        and int(flat["strategy.public-epochs"]) > 0
    ):
        raise BadInput(
            'data.public-labels: given "none", but fedmd trains on the public labels first; allowed "own", '
            '"shared", or strategy.public-epochs = 0'
        )
    if flat["log.retention"] == "sum":
        raise BadInput(
            'log.retention: given "sum", but with fedmd every round is about other examples, whose answers '
            'have no meaningful sum; allowed "full" or "interval:<k>"'
        )


def _check_pruned(flat: Mapping[str, Scalar]) -> None:
    by_public = flat["strategy.score"] == "fisher" and flat["strategy.score-source"] == "public"
    if by_public and lacks_public_data(flat):
        raise BadInput(
            "data.public: given 0, but pruned-dp scores neurons on public data; give some, or "
            'strategy.score-source = "global-model"'
        )
    if flat["strategy.score-source"] == "private":
        _check_private_scores(flat)
    if flat["privacy.unit"] == "client-central" and flat["privacy.client-sampling"] == "poisson":
        raise BadInput(
            'privacy.client-sampling: given "poisson", but pruned-dp divides each entry by the number of '
            'clients asked for it, which Poisson sampling makes random; allowed "fixed"'
        )
    if flat["forget.prune"] != "none":
        raise BadInput(
            f"forget.prune: given {shown(flat['forget.prune'])}, but pruned-dp trains parts of a dense model"
        )


def _check_private_scores(flat: Mapping[str, Scalar]) -> None:
    if not flat["strategy.score-noise"]:
        raise BadInput(
            'strategy.score-noise: given 0, but strategy.score-source is "private": a private mask without '
            "its cost is refused; allowed a noise multiplier above 0, whose cost becomes part of ε"
        )
    if flat["privacy.unit"] not in {"example", "client-local"}:
        raise BadInput(
            'strategy.score-source: given "private", whose cost the clients\' accountants count, but '
            f'privacy.unit is {shown(flat["privacy.unit"])}; allowed "public" or "global-model", or '
            'privacy.unit = "example" or "client-local"'
        )


def _check_privacy(flat: Mapping[str, Scalar]) -> None:
    unit, noise = flat["privacy.unit"], float(flat["privacy.noise-multiplier"])
    if noise < 0 and not flat["privacy.epsilon"]:
        raise BadInput(
            "privacy.epsilon: given 0, must be above 0, or privacy.noise-multiplier must be given: "
            "the noise is solved from the budget"
        )
    if noise == 0 and flat["privacy.epsilon"]:
        raise BadInput(
            f"privacy.noise-multiplier: given 0, which keeps no budget, but privacy.epsilon is "
            f"{flat['privacy.epsilon']}"
        )
    if flat["data.scale"] != "none":
        raise BadInput(
            f"data.scale: given {shown(flat['data.scale'])}, whose means and deviations are taken over the "
            f'clients\' data without noise, but privacy.unit is {shown(unit)}; allowed "none"'
        )
    if flat["run.federated-evaluation"]:
        raise BadInput(
            "run.federated-evaluation: given true, which tells the clients' accuracy without noise, but "
            f"privacy.unit is {shown(unit)}"
        )
    if unit == "client-central" and str(flat["strategy.name"]).startswith(FLWR_PREFIX):
        raise BadInput(
            f'strategy.name: given {shown(flat["strategy.name"])}, but privacy.unit = "client-central" needs '
            "a strategy of this project, which adds the mean of the updates"
        )


def _check_compression(flat: Mapping[str, Scalar]) -> None:
    unit, codecs = flat["privacy.unit"], f"{flat['compression.codec']}+{flat['compression.down-codec']}"
    if flat["strategy.name"] == "pruned-dp":
        raise BadInput(
            f"compression.codec: given {shown(flat['compression.codec'])}, but with pruned-dp every client "
            'has another part of the model, of which there are no differences; allowed "none"'
        )
    if flat["compression.rank"] != 4 and "low-rank" not in codecs.split("+"):
        raise BadInput(
            f"compression.rank: given {flat['compression.rank']}, which has an effect only with low-rank in "
            "compression.codec or compression.down-codec"
        )
    if unit != "none" and flat["compression.upload-threshold"]:
        raise BadInput(
            f"compression.upload-threshold: given {flat['compression.upload-threshold']}, but whether a "
            f"client withholds its update tells of its data, and privacy.unit is {shown(unit)}; allowed 0"
        )
    if unit == "client-central" and flat["compression.error-feedback"]:
        raise BadInput(
            "compression.error-feedback: given true, which carries what a client held back into later rounds "
            'that may not draw it, but privacy.unit is "client-central", whose ε counts on the draw; allowed '
            "false"
        )


def _check_buffer(size: int, clients: int) -> None:
    if 0 < clients < size:
        raise BadInput(
            f"strategy.buffer-size: given {size}, allowed at most data.clients, which is {clients}: a buffer "
            "holds one update per client"
        )


def _check_cohort(flat: Mapping[str, Scalar]) -> None:
    """Refuse more clients than there are; how many there are is not known where ``data.clients`` is 0."""
    min_clients, clients = int(flat["selection.min-clients"]), int(flat["data.clients"])
    left_out = split_list(str(flat["data.without"]))
    if not clients:
        return
    if len(left_out) >= clients:
        given = shown(flat["data.without"])
        raise BadInput(f"data.without: given {given}, which leaves no client of {clients}")
    if clients - len(left_out) < min_clients:
        less = f" less {len(left_out)} of data.without" if left_out else ""
        raise BadInput(
            f"selection.min-clients: given {min_clients}, allowed at most data.clients, which is "
            f"{clients}{less}"
        )


def check_names(strategy: str, method: str, defaults: Mapping[str, Scalar]) -> None:
    """Refuse a strategy or a forgetting method that does not exist.

    The registries are imported only for a name that is not the default, which is known: they bring torch with
    them, and most commands should answer before that.

    Parameters
    ----------
    strategy
        ``strategy.name``.
    method
        ``forget.method``.
    defaults
        Every key's default.

    Raises
    ------
    BadInput
        Naming the key, the name given, the names there are and the nearest of them.
    """
    if strategy != defaults["strategy.name"]:
        from strategies import registry
        from strategies.flower import flower as builtin

        if strategy.startswith(FLWR_PREFIX):
            _check_known("strategy.name", strategy, (FLWR_PREFIX + name for name in builtin.available()))
        else:
            _check_known("strategy.name", strategy, [*registry.STRATEGIES, f"{FLWR_PREFIX}<ClassName>"])
    if method != defaults["forget.method"]:
        from unlearning.methods import METHODS

        _check_known("forget.method", method, METHODS)


def _check_known(key: str, given: str, known: Iterable[str]) -> None:
    names = sorted(known)
    if given not in names:
        near = difflib.get_close_matches(given, names, n=1, cutoff=_ALIKE)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"{key}: given {shown(given)}, allowed {', '.join(names)}{advice}")
