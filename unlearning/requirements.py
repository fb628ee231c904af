"""Checks before any work: a method must serve the request, and the run must have what the method reads."""

from collections.abc import Mapping

from strategies.client.holdout import is_held_out, most_held_out
from strategies.core.errors import BadInput
from strategies.registry import traits_of
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from unlearning.convexity import why_no_certificate
from unlearning.guarantees import CHOSEN_BY_DATA
from unlearning.methods import METHODS
from unlearning.methods.base import Method
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.base import Needs

_SERVED_BY = {
    "norms": ("full", "interval", "sum"),
    "sum": ("full", "sum"),
    "kept": ("full", "interval"),
    "full": ("full",),
}
"""Which retention is enough for what a method reads of the log."""


def find_method(name: str) -> Method:
    """Return the method of that name; BadInput if there is none."""
    if name not in METHODS:
        raise BadInput(f"unknown method '{name}'; known methods: {', '.join(METHODS)}")
    return METHODS[name]


def check_request(run: TrainedRun, request: ForgetRequest, method: str, settings: ForgetSettings) -> Needs:
    """Check, before any work, that a method can serve a request on a run; return what it needs.

    BadInput if the method does not serve the kind of request, a client, class or position is unknown or
    forgotten already, or the log or the public data that it needs is missing.
    """
    chosen = find_method(method)
    if request.kind not in chosen.serves:
        raise BadInput(f"{method} does not serve a {request.kind} request: {chosen.refusal}")
    known = set(run.clients)
    for client_id in request.named_clients:
        if client_id not in known:
            raise BadInput(f"unknown client '{client_id}'; known clients: {', '.join(run.clients)}")
    _check_classes(run, request)
    _check_positions(request, run.num_examples, run.plan.local_test_share)
    _check_not_forgotten(run, request)
    _check_remains(run, request)
    needed = chosen.needs(settings)
    check_strategy(run.plan.strategy.name, chosen, request.kind)
    _check_models(run, method, needed)
    _check_personal(run, method, needed)
    _check_private(run, chosen, needed)
    _check_labels(run, method, needed)  # Names a method that serves instead, as far as the others let it
    _check_renewable(run, chosen)
    _check_prunes(run, chosen)
    _check_convex(run, method, needed)
    _check_fresh(run, method, needed)
    _check_follows(run, method, needed)
    _check_log(run, method, needed)
    _check_purged(run, request, method, needed)
    _check_held_out(run, request, method, needed)
    if needed.public and run.public is None:
        raise BadInput(
            f"{method} needs public data on the server: set data.public to a share or the name of a data set"
        )
    return needed


def can_serve(run: TrainedRun, request: ForgetRequest, method: str, settings: ForgetSettings) -> bool:
    """Whether a method serves a request on a run, as far as `check_request` tells."""
    try:
        check_request(run, request, method, settings)
    except BadInput:
        return False
    return True


def _check_classes(run: TrainedRun, request: ForgetRequest) -> None:
    if request.classes and not run.task.has_groups:
        raise BadInput(
            f"a class request: in this run's task ({run.task.name}) examples are of no class that could be "
            "forgotten; name a client or examples"
        )
    for label in request.classes:
        if label >= run.num_groups:
            raise BadInput(f"unknown class {label}; the run has classes 0 to {run.num_groups - 1}")


def _check_labels(run: TrainedRun, method: str, needed: Needs) -> None:
    if needed.labels and not run.task.labelled:
        raise BadInput(
            f"{method} {needed.labels}, but the targets of this run's task ({run.task.name}) are no class "
            "labels; use another method, such as finetune, or retrain"
        )


def _check_remains(run: TrainedRun, request: ForgetRequest) -> None:
    """Refuse a request that leaves no client, as far as that is known without asking."""
    if set(run.clients) <= {*request.clients, *run.forgotten_clients}:
        raise BadInput("the request names every client: nobody would remain")
    drop = Drop.joined(each.drop for each in (request, *run.forgotten))
    if drop.classes and len(drop.classes) >= run.num_groups:
        raise BadInput("the request names every class: nobody would remain")
    left = {*run.clients} - {*request.clients, *run.forgotten_clients}
    if all(i in run.num_examples and len(drop.indices.get(i, ())) >= run.num_examples[i] for i in left):
        raise BadInput("the request names every example of every client: nobody would remain")


def _check_positions(request: ForgetRequest, num_examples: Mapping[str, int], holdout_share: float) -> None:
    """Refuse positions that a client did not train on, and those that it does not have, if that is known."""
    for client_id, positions in request.samples.items():
        if held := [position for position in positions if is_held_out(holdout_share, client_id, position)]:
            raise BadInput(
                f"example {held[0]} of client {client_id} was held out (data.local-test-share): the model "
                "was not trained on it, so there is nothing to forget"
            )
        count = num_examples.get(client_id)
        if count is not None and positions[-1] >= (size := count + most_held_out(holdout_share, count)):
            most = f"at most {size}" if holdout_share else f"{size}"
            raise BadInput(
                f"client {client_id} has {most} examples, at positions 0 to {size - 1}: got {positions[-1]}"
            )


def _check_prunes(run: TrainedRun, method: Method) -> None:
    if not method.prunes_anew:
        return
    if run.mask_origin not in CHOSEN_BY_DATA:
        raise BadInput(
            f"{method.name} needs a run that was pruned by {' or '.join(sorted(CHOSEN_BY_DATA))} "
            "(forget.prune); on any other run, retrain is exact"
        )
    if run.pruned_by is None:
        raise BadInput(
            f"{method.name}: how this run was pruned is not known; prune the run it came from anew"
        )


def _check_models(run: TrainedRun, method: str, needed: Needs) -> None:
    if run.client_models and needed.models == "global":
        able = [name for name, each in METHODS.items() if each.needs(ForgetSettings()).models != "global"]
        raise BadInput(
            f"{method} works on one model that all clients share, but with {run.plan.strategy.name} each has "
            f"its own; use {' or '.join(able)}"
        )
    if needed.models == "client" and not run.client_models:
        raise BadInput(
            f"{method} works on models that clients keep to themselves, but with {run.plan.strategy.name} "
            "all share one"
        )


def _check_personal(run: TrainedRun, method: str, needed: Needs) -> None:
    if run.local_layers and run.mask_origin:
        raise BadInput(
            'forget.prune needs a whole model on the server, but with model.batch-norm = "local" layers stay '
            "with each client"
        )
    if run.local_layers and needed.models != "any":
        raise BadInput(
            f'{method} works on a model that the server has whole, but with model.batch-norm = "local" '
            "layers stay with each client, and were trained beside the forgotten data; use retrain"
        )
    if run.personal_models and needed.models != "any":
        raise BadInput(
            f"{method} changes only the model that all clients share, but with {run.plan.strategy.name} each "
            "also keeps a personal one, which was held near it; use retrain"
        )


def _check_private(run: TrainedRun, method: Method, needed: Needs) -> None:
    """Refuse a method whose clients would work on their data less protected than the run promised."""
    if method.trains_as_the_run or not (needed.remaining or needed.forgotten):
        return
    if run.plan.privacy.encryption != "none":
        raise BadInput(
            f"{method.name} has clients answer for themselves, in the clear, but the run's updates are "
            "encrypted; use retrain, which encrypts them as well"
        )
    if run.plan.privacy.secure_aggregation:
        raise BadInput(
            f"{method.name} has clients answer for themselves alone, but the run was trained under secure "
            "aggregation, where the server gets sums only; use retrain, whose sums are masked as well"
        )
    if run.plan.privacy.on:
        raise BadInput(
            f"{method.name} has clients answer without noise, but the run is private (privacy.unit = "
            f'"{run.plan.privacy.unit}"); use subtract, fast-fedul or distill, which visit '
            "nobody, or retrain, which spends each client's budget again"
        )


def _check_renewable(run: TrainedRun, method: Method) -> None:
    """Refuse to retrain from the very weights that a run of hidden sums began with.

    The first sums of the two would differ by little more than the forgotten client's update.
    """
    if method.trains_as_the_run and run.given_weights and run.plan.privacy.hides_updates:
        raise BadInput(
            f"{method.name} begins from the weights that the run was given (model.weights): its first sum "
            "less the run's would be near the forgotten client's update, which secure aggregation or "
            "encryption hides; train anew without the client (data.without)"
        )


def _check_convex(run: TrainedRun, method: str, needed: Needs) -> None:
    """Refuse a method that certifies something if this run gives it nothing to certify."""
    if needed.convex and (reason := why_no_certificate(run)):
        raise BadInput(f"{method}: no certificate: {reason}; use another method, or retrain, which is exact")


def _check_fresh(run: TrainedRun, method: str, needed: Needs) -> None:
    """Refuse a method that takes every update as made from its round's model, if updates may be late."""
    if needed.fresh and run.plan.strategy.traits.asynchronous:
        raise BadInput(
            f"{method}{needed.form} takes every update as made from the model of its round, but with "
            f"{run.plan.strategy.name} they may be late; use subtract (lazy), distill from it, or retrain"
        )


def _check_not_forgotten(run: TrainedRun, request: ForgetRequest) -> None:
    earlier, gone = Drop.joined(each.drop for each in run.forgotten), set(run.forgotten_clients)
    clients = [f"client {i}" for i in request.named_clients if i in gone]
    classes = [f"class {label}" for label in request.classes if label in earlier.classes]
    samples = [
        f"example {position} of client {i}"
        for i, positions in request.samples.items()
        for position in positions
        if position in earlier.indices.get(i, ())
    ]
    if found := [*clients, *classes, *samples]:
        raise BadInput(f"{found[0]} was forgotten before: the model to start from was made without it")


def _check_follows(run: TrainedRun, method: str, needed: Needs) -> None:
    held = [each.name for each in run.forgotten if each.kind != "client"]
    if needed.rebuilds and held:
        raise BadInput(
            f"{method} cannot follow {held[0]}: it makes the model of logged updates, which hold that; use a "
            "method that only takes away from the log, such as subtract, or reads none, such as finetune"
        )


def _check_purged(run: TrainedRun, request: ForgetRequest, method: str, needed: Needs) -> None:
    if needed.log == "none" or run.log is None or not (purged := run.log.purged()):
        return
    for client_id in request.clients:
        if client_id in purged:
            raise BadInput(
                f"client {client_id} was forgotten and purged from the update log, {purged[client_id]}: "
                f"{method} needs its updates, which are erased; retrain needs none"
            )
    gone = set(run.forgotten_clients)
    lost = [i for i in purged if i not in gone]
    if needed.log != "sum" and lost:
        raise BadInput(
            f"{method} needs the others' updates, but those of client {lost[0]} were purged; start from a "
            f"model that was made without client {lost[0]}"
        )


def _check_held_out(run: TrainedRun, request: ForgetRequest, method: str, needed: Needs) -> None:
    """Refuse to work until the forgotten data look like others if there are no others to compare with."""
    if not needed.held_out or (request.kind == "class" and run.task.labelled):
        return
    public, reason = run.public, ""
    if public is None:
        reason = "the server has none: set data.public to a share or the name of a data set"
    elif run.plan.strategy.traits.public_data:
        reason = f"those of this run were trained on ({run.plan.strategy.name})"
    elif run.task.labelled and not bool((public.targets() >= 0).any()):
        reason = "those of this run have no labels of its classes (data.public-labels)"
    if reason:
        raise BadInput(
            f"{method} works until the forgotten data look like data that nobody trained on, which public "
            f"data on the server must tell, but {reason}; or say how long it works: "
            f"forget.{method}.{needed.held_out}"
        )


def _check_log(run: TrainedRun, method: str, needed: Needs) -> None:
    if needed.log == "none":
        return
    if run.log is None:
        raise BadInput(f"{method} needs the update log, but the run was trained with log.enabled = false")
    if needed.log != "kept" and run.log.averaging_rounds() != run.log.rounds():
        raise BadInput(
            f"{method} needs rounds that added the average of the clients' updates to the model, but "
            f"{run.plan.strategy.name} changed it in another way; use a method that reads no log, or retrain"
        )
    retention = run.log.retention
    if needed.log == "kept" and retention.kind in _SERVED_BY["kept"] and not run.log.kept_rounds():
        raise BadInput(f"{method} needs a logged round, but of {retention} none was kept yet")
    enough = retention.kind in _SERVED_BY[needed.log]
    if not enough and not all(retention.keeps(server_round) for server_round in run.log.rounds()):
        wanted = " or ".join(_SERVED_BY[needed.log])
        raise BadInput(f"{method} needs log.retention {wanted}, but the run kept '{retention}'")


def check_online(
    method: str, request: ForgetRequest, needed: Needs, cohort: Cohort | None, holdout_share: float
) -> None:
    """Refuse a request if a client that its method needs is not connected, or lacks an example that it names.

    `holdout_share` is what each client holds out of its examples; BadInput names the client or position.
    """
    if cohort is not None:
        known = {i: info.known_examples for i, info in cohort.clients.items()}
        counts = {i: count for i, count in known.items() if count is not None}
        _check_positions(request, counts, holdout_share)
    if needed.remaining and cohort is None:
        raise BadInput(f"{method} needs the remaining clients online, but no client is connected")
    if needed.forgotten:
        for client_id in request.named_clients:
            if cohort is None or client_id not in cohort.clients:
                raise BadInput(
                    f"{method} needs client '{client_id}' online, which holds what shall be forgotten"
                )


def check_strategy(strategy: str, method: Method, kind: str) -> None:
    """Refuse a method, or a kind of request, that a strategy does not allow.

    BadInput says why and what serves.
    """
    traits = traits_of(strategy)
    if traits.only_retraining and not method.is_reference:
        raise BadInput(f"{method.name} does not apply to {strategy}: {traits.only_retraining}; use retrain")
    if traits.only_clients and kind != "client":
        raise BadInput(f"{strategy} does not serve a {kind} request: {traits.only_clients}")
