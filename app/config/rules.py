"""The rules between sections of the run config: keys that contradict each other.

A key whose value would have no effect is refused if it differs from its default. That it is given does not
count: Flower passes every key of ``[tool.flwr.app.config]``, and a resolved config names them all. An
algorithm's traits say which keys it has, and what it can be combined with.
"""

from collections.abc import Callable, Mapping

from app.config import staged, training_rules
from app.config.judging_rules import check_judged
from app.config.model_rules import check_batch_norm
from app.config.secure_rules import check_encrypted, check_secure
from app.config.training_rules import LEARNING_RATE, LOCAL_STEPS
from strategies.core.conditions import (
    Condition,
    is_number,
    lacks_public_data,
    only_with,
    refuse_changed,
    shown,
)
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, split_list
from strategies.core.traits import Traits
from strategies.registry import all_traits, traits_of


def _owned() -> tuple[Condition, ...]:
    """Return the conditions that an algorithm's keys need one of the algorithms that have them."""
    owners: dict[str, list[Traits]] = {}
    for traits in all_traits():
        for key in traits.keys:
            owners.setdefault(key, []).append(traits)
    together: dict[tuple[Traits, ...], list[str]] = {}
    for key, of in owners.items():
        together.setdefault(tuple(of), []).append(key)
    return tuple(_only_with(keys, of) for of, keys in together.items())


def _only_with(keys: list[str], owners: tuple[Traits, ...]) -> Condition:
    words = f"strategy.name = {' or '.join(shown(traits.shown_name) for traits in owners)}"
    return Condition(
        tuple(keys), "strategy.name", lambda name: any(each.owns(str(name)) for each in owners), words
    )


def _needs(keys: str, trait: Callable[[Traits], bool], words: str) -> Condition:
    return Condition(
        tuple(keys.split()), "strategy.name", lambda name: trait(traits_of(str(name))), f"a strategy {words}"
    )


_BY_TRAITS = (
    _needs(
        "selection.fraction selection.over-selection selection.deadline privacy.unit",
        lambda traits: not traits.asynchronous,
        "that works in rounds",
    ),
    _needs(
        f"model.name model.width model.hidden model.weights model.batch-norm {LOCAL_STEPS} "
        f"{LEARNING_RATE} run.federated-evaluation forget.prune privacy.unit "
        "run.keep run.stop data.validation-share "
        "compression.codec selection.method",
        lambda traits: traits.one_model,
        "that trains one model for all",
    ),
    _needs(
        "selection.fraction selection.method selection.over-selection selection.speeds",
        lambda traits: not traits.everybody,
        "that can leave clients out of a round",
    ),
    _needs(
        f"{LOCAL_STEPS} run.precision", lambda traits: traits.local_steps, "whose clients take local steps"
    ),
    _needs("compression.codec", lambda traits: traits.encodes, "that averages updates"),
    _needs(
        "privacy.unit", lambda traits: traits.noised, "of which nothing leaves a client but noised updates"
    ),
    _needs("privacy.unit forget.prune", lambda traits: traits.averages, "that averages updates"),
    _needs(
        "train.isolation", lambda traits: traits.isolates, "that averages updates into one model in rounds"
    ),
)
_OF_ALGORITHMS = tuple({id(each): each for traits in all_traits() for each in traits.conditions}.values())

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


_GENERAL = (
    Condition(
        ("data.public-classes", "data.public-labels", "data.public-limit"),
        "data.public",
        lambda public: not is_number(str(public)),
        "data.public = <the name of a data set>",
    ),
    only_with("model.width", "model.name", "cnn"),
    only_with("task.class-weights task.label-smoothing", "task.name", "classification", "auto"),
    only_with(
        "task.outputs task.squared-error task.scale task.scale-from", "task.name", "regression", "auto"
    ),
    only_with("task.ignore", "task.name", "segmentation", "auto"),
    only_with("model.hidden", "model.name", "mlp", "cnn"),
    only_with(_PRIVATE_KEYS, "privacy.unit", "example", "client-local", "client-central"),
    only_with("privacy.engine", "privacy.unit", "example"),
    only_with("run.precision", "privacy.unit", "none", "client-local", "client-central"),
    only_with("privacy.client-sampling", "privacy.unit", "client-central"),
    only_with("privacy.ledger", "privacy.unit", "example", "client-local"),
    only_with("privacy.encryption-key", "privacy.encryption", "ckks"),
    only_with("privacy.threshold privacy.max-examples", "privacy.secure-aggregation", True),
    only_with("privacy.max-examples", "privacy.unit", "none"),
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
    only_with("selection.method selection.over-selection selection.speeds", "privacy.unit", "none"),
    only_with("selection.candidates", "selection.method", "power-of-choice"),
    only_with("selection.explore", "selection.method", "oort"),
    only_with("selection.budget", "selection.method", "budgeted"),
    Condition(
        ("selection.deadline",),
        "selection.speeds",
        lambda speeds: speeds != "none",
        'selection.speeds other than "none"',
    ),
    only_with("data.scale-range", "data.scale", "federated"),
    only_with("task.scale-range", "task.scale-from", "federated"),
    only_with("task.scale-from", "task.scale", 0.0),
    only_with("data.alpha", "data.partition", "dirichlet"),
    only_with("data.shards-per-client", "data.partition", "shards"),
    only_with("data.classes-per-client", "data.partition", "pathological"),
    only_with("log.retention log.dtype log.encrypted", "log.enabled", True),
    only_with("log.keys", "log.encrypted", True),
    Condition(
        ("log.dtype",),
        "log.retention",
        lambda given: given != "sum",
        'log.retention = "full" or "interval:<k>"',
    ),
    only_with("request.run", "run.workflow", "resume", "continue", "forget", "audit"),
    only_with("request.clients request.classes request.samples", "run.workflow", "forget", "audit"),
    only_with("request.after", "run.workflow", "continue", "forget", "audit"),
    only_with("request.rounds", "run.workflow", "continue"),
    only_with("forget.sparsity", "forget.prune", "omp", "synflow", "imp"),
    only_with("forget.prune-iterations", "forget.prune", "synflow"),
    only_with("forget.prune-round-share", "forget.prune", "imp"),
)

_ASKED = (
    "analytics.statistic analytics.column analytics.quantile analytics.low analytics.high analytics.bins "
    "analytics.top"
)
_ANALYTICS = (
    only_with(_ASKED, "run.workflow", "analytics"),
    only_with("analytics.enabled", "run.workflow", "train", "resume", "continue", "forget", "audit"),
    only_with("analytics.quantile", "analytics.statistic", "quantile"),
    only_with("analytics.top", "analytics.statistic", "heavy-hitters"),
    only_with("analytics.low analytics.high analytics.bins", "analytics.column", "brightness"),
)

CONDITIONS: tuple[Condition, ...] = (
    *_owned(),
    *_OF_ALGORITHMS,
    *_BY_TRAITS,
    *_GENERAL,
    *training_rules.CONDITIONS,
    *staged.CONDITIONS,
    *_ANALYTICS,
)
"""When keys have an effect."""


def check_contradictions(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar]) -> None:
    """Refuse keys that contradict each other; both mappings hold every key of the run config.

    Raises
    ------
    BadInput
        Naming the key, what was given and what it contradicts.
    """
    for condition in CONDITIONS:
        if not condition.holds(flat[condition.on]):
            needed = f"{condition.words}, but {condition.on} is {shown(flat[condition.on])}"
            refuse_changed(condition.keys, flat, defaults, needed)
    staged.check_staged(flat)
    _check_randomness(flat, defaults)
    _check_algorithm(flat)
    _check_analytics(flat, defaults)
    if flat["run.workflow"] not in {"train", "analytics"} and not flat["request.run"]:
        raise BadInput(
            f'request.run: given "", must name a run with run.workflow = {shown(flat["run.workflow"])}'
        )
    _check_sections(flat)
    training_rules.check_schedule(flat)
    check_batch_norm(flat)
    check_judged(flat)
    _check_local_test(flat)
    _check_clients_files(flat)
    _check_cohort(flat)
    training_rules.check_isolation(flat)


def _check_clients_files(flat: Mapping[str, Scalar]) -> None:
    """Refuse what needs all data in one place where every client has a file of its own."""
    if flat["data.folder-of-clients"] and flat["data.path"]:
        raise BadInput(
            f"data.path: given {shown(flat['data.path'])}, but data.folder-of-clients names each client's "
            "file; give one of the two"
        )
    if flat["data.folder-of-clients"] and flat["data.scale"] == "standard":
        raise BadInput(
            'data.scale: given "standard", which takes all data in one place, but data.folder-of-clients '
            'gives each client its own; allowed "federated" or "none"'
        )
    if flat["data.scale"] == "federated" and not traits_of(str(flat["strategy.name"])).one_model:
        raise BadInput(
            f'data.scale: given "federated", but with {flat["strategy.name"]} every client holds the '
            'public data, which it would have to scale before the first sum; allowed "standard" or "none"'
        )


def _check_algorithm(flat: Mapping[str, Scalar]) -> None:
    """Refuse what contradicts the algorithm, as its traits say."""
    name = str(flat["strategy.name"])
    traits = traits_of(name)
    if traits.public_data and lacks_public_data(flat):
        raise BadInput(
            f"data.public: given 0, but {name} {traits.public_data}: a share or the name of a data set"
        )
    if traits.check is not None:
        traits.check(flat)


def _check_randomness(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar]) -> None:
    noised = [key for traits in all_traits() if (key := traits.noise_key)]
    if flat["privacy.unit"] == "none" and not any(flat[key] for key in noised):
        others = "".join(f", or {key} above 0" for key in noised)
        refuse_changed(("privacy.randomness",), flat, defaults, f"noise: a privacy.unit{others}")


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
    one_file = int(flat["data.clients"]) and not flat["data.folder-of-clients"] and not flat["run.project"]
    if flat["run.federated-evaluation"] and not share and one_file:
        raise BadInput(
            "run.federated-evaluation: given true, but data.local-test-share is 0, and clients would be "
            "measured on what they trained on; allowed with a share above 0, or clients with test data of "
            "their own"
        )
    if share and not traits_of(str(flat["strategy.name"])).one_model:
        raise BadInput(
            f"data.local-test-share: given {share}, but {flat['strategy.name']} measures each client's model "
            "on the test data of the data set; allowed 0"
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
    if unit == "client-central" and not traits_of(str(flat["strategy.name"])).adds_mean:
        raise BadInput(
            f'strategy.name: given {shown(flat["strategy.name"])}, but privacy.unit = "client-central" needs '
            "a strategy of this project, which adds the mean of the updates"
        )


def _check_compression(flat: Mapping[str, Scalar]) -> None:
    unit, codecs = flat["privacy.unit"], f"{flat['compression.codec']}+{flat['compression.down-codec']}"
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


def _check_cohort(flat: Mapping[str, Scalar]) -> None:
    """Refuse more clients than there are; with ``data.clients`` = 0 their number is not known."""
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


def _check_analytics(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar]) -> None:
    """Refuse protection of an answer to no question, and an empty range."""
    of_targets = flat["task.scale-from"] == "federated"
    asks = flat["run.workflow"] == "analytics" or flat["analytics.enabled"] or of_targets
    needed = 'analytics.enabled = true, run.workflow = "analytics" or task.scale-from = "federated"'
    if not asks:
        refuse_changed(("analytics.epsilon",), flat, defaults, needed)
    if not asks and flat["data.scale"] != "federated":
        refuse_changed(("analytics.min-clients",), flat, defaults, f'{needed}, or data.scale = "federated"')
    asks = asks or flat["data.scale"] == "federated"
    if flat["privacy.unit"] != "none":
        if flat["analytics.enabled"]:
            _check_beside_privacy(flat, "analytics.enabled: given true", "false")
        if of_targets:
            _check_beside_privacy(flat, 'task.scale-from: given "federated"', '"server"')
    clients = int(flat["data.clients"])
    if asks and 0 < clients < int(flat["analytics.min-clients"]):
        raise BadInput(
            f"analytics.min-clients: given {flat['analytics.min-clients']}, allowed at most data.clients, "
            f"which is {clients}"
        )
    if float(flat["analytics.low"]) >= float(flat["analytics.high"]):
        raise BadInput(
            f"analytics.low: given {shown(flat['analytics.low'])}, allowed below analytics.high, which is "
            f"{shown(flat['analytics.high'])}"
        )


def _check_beside_privacy(flat: Mapping[str, Scalar], given: str, else_: str) -> None:
    """Refuse an answer that the clients' accounts cannot count, or that leaves no budget for training."""
    epsilon, budget = float(flat["analytics.epsilon"]), float(flat["privacy.epsilon"])
    unit = shown(flat["privacy.unit"])
    if flat["privacy.unit"] != "example":
        raise BadInput(
            f"{given}, whose noise hides one example, but privacy.unit is {unit}; allowed with "
            f'"example", or {else_}'
        )
    if not epsilon:
        raise BadInput(
            "analytics.epsilon: given 0, which answers the question before the training without noise, but "
            f"privacy.unit is {unit}; allowed above 0, and counted in every client's ε, or "
            f"{given.partition(':')[0]} = {else_}"
        )
    if budget and epsilon >= budget:
        raise BadInput(
            f"analytics.epsilon: given {shown(epsilon)}, allowed below privacy.epsilon, which is "
            f"{shown(budget)} and of which training needs the rest"
        )
