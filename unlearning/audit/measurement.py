"""Measure one model: what its clients say about D_f and D_r, and what the server sees on its test data.

It is the same for a model before forgetting, after it, or retrained, and the same in one process, under `flwr
run` and deployed: D_f and D_r are only ever seen by the clients (unlearning/audit/evidence.py), D_t and
triggered images by the server.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from strategies.client.backdoor import Trigger, triggered_test
from strategies.client.evaluation import outputs_of
from strategies.client.holdout import most_held_out
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, groups_of, selection_mask
from strategies.core.seeds import numpy_generator
from strategies.server.aggregation import is_finite
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from strategies.task import CLASSIFICATION, FULL_SCORE, Task
from unlearning.audit import metrics
from unlearning.audit.apart import CLEAN, POISONED, Part, parts
from unlearning.audit.gathering import Evidence, Questions, gather
from unlearning.audit.held_out import HeldOutAnswer
from unlearning.audit.margins import Margins
from unlearning.audit.membership import MembershipResult, membership_attack
from unlearning.audit.own_models import OwnModelQuestions
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings


@dataclass(frozen=True)
class OutputDistance:
    """Mean KL(softmax reference ‖ softmax model) in nats; None where there was no reference or no example."""

    forget: float | None = None
    retain: float | None = None
    test: float | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured of one model; percentages, and None where something could not be measured.

    Attributes
    ----------
    test_accuracy, retain_accuracy, unlearning_accuracy : float or None
        TA (in class-wise forgetting without the forgotten classes), RA and UA; of tasks without labels, mean
        scores in place of accuracies.
    membership : MembershipResult or None
        The membership attack, with the attacker's own accuracy.
    attack_success_rate : float or None
        None without an attack.
    client_accuracy : mapping of str to float
        Accuracy of each client on the examples it keeps: the fairness among the remaining clients.
    output_distance : OutputDistance
        Distance of the outputs to the reference's.
    num_forget, num_retain, num_test, num_triggered : int
        Over how many examples UA, RA, TA and ASR were computed.
    missing : mapping of str to str
        Clients that did not answer, and why; their examples are in none of the above.
    seconds : float
        Wall-clock of this measurement.
    sums_only : tuple of str
        Clients that sent sums in place of numbers per example: they have no part in the membership attack.
    margins : Margins or None
        Of single examples; never written to a file.
    apart : mapping of str to Part
        What was measured on poisoned or hard and on clean examples of D_f apart; empty where the run stages
        none of them.
    """

    test_accuracy: float | None
    retain_accuracy: float | None
    unlearning_accuracy: float | None
    membership: MembershipResult | None
    attack_success_rate: float | None
    client_accuracy: Mapping[str, float]
    output_distance: OutputDistance
    num_forget: int
    num_retain: int
    num_test: int
    num_triggered: int
    missing: Mapping[str, str]
    seconds: float
    sums_only: tuple[str, ...] = ()
    margins: Margins | None = field(default=None, compare=False)
    apart: Mapping[str, Part] = field(default_factory=dict)

    @property
    def mia_efficacy(self) -> float | None:
        """Percentage of D_f that the membership attacker calls non-members; mean over its draws."""
        return self.membership.efficacy if self.membership else None

    @property
    def worst_client_accuracy(self) -> float | None:
        """Accuracy of the remaining client that is served worst."""
        return min(self.client_accuracy.values(), default=None)

    @property
    def mean_client_accuracy(self) -> float | None:
        """Mean accuracy over the remaining clients, each counted once."""
        values = self.client_accuracy.values()
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as a mapping that `json` can write."""
        attack = self.membership
        return {
            "test_accuracy": self.test_accuracy,
            "retain_accuracy": self.retain_accuracy,
            "unlearning_accuracy": self.unlearning_accuracy,
            "mia_efficacy": self.mia_efficacy,
            "mia_efficacy_std": attack.efficacy_std if attack else None,
            "mia_attacker_accuracy": attack.attacker_accuracy if attack else None,
            "mia_attacker_accuracy_std": attack.attacker_accuracy_std if attack else None,
            "mia_guessing_bound": attack.guessing_bound if attack else None,
            "mia_meaningful": attack.meaningful if attack else None,
            "mia_examples_per_side": attack.num_per_side if attack else None,
            "mia_draws": attack.num_draws if attack else None,
            "attack_success_rate": self.attack_success_rate,
            "worst_client_accuracy": self.worst_client_accuracy,
            "mean_client_accuracy": self.mean_client_accuracy,
            "client_accuracy": dict(self.client_accuracy),
            **{f"output_distance_{part}": kl for part, kl in asdict(self.output_distance).items()},
            "num_forget": self.num_forget,
            "num_retain": self.num_retain,
            "num_test": self.num_test,
            "num_triggered": self.num_triggered,
            "missing_clients": dict(self.missing),
            "measuring_seconds": self.seconds,
            "apart": {kind: part.to_json() for kind, part in self.apart.items()},
        }


def measure(
    run: TrainedRun,
    flat: Tensor,
    request: ForgetRequest,
    cohort: Cohort,
    settings: AuditSettings,
    reference: Tensor | None = None,
    name: str = "model",
) -> Measurement:
    """Measure one model.

    Parameters
    ----------
    run
        Gives the architecture, the test data, the trigger, and what was forgotten earlier, which counts
        neither as forgotten nor as retained.
    flat
        The model's parameters, shape [run.layout.size]; LetheError if one is not finite.
    request
        What is, or was, to be forgotten.
    cohort
        All clients, the forgotten ones included: only they hold D_f.
    settings
        The section `audit`.
    reference
        The retrained model's parameters; None if this is that model, or there is none.
    name
        The model's name in messages.
    """
    began = time.perf_counter()
    if not is_finite(flat):
        raise LetheError(
            f"the model '{name}' has parameters that are not finite: there is nothing to measure"
        )
    evidence, on_test = _asked(run, flat, request, cohort, reference, name)
    return _measurement(run, request, settings, evidence, on_test, began)


def margins_under(
    run: TrainedRun, flat: Tensor, request: ForgetRequest, cohort: Cohort, name: str
) -> Margins:
    """Return how well one model knows each example; parameters as for `measure`."""
    evidence, on_server = _asked(run, flat, request, cohort, None, name)
    unseen = on_server.known_margin(_tested(run, request, on_server))
    return Margins.of(evidence, unseen, run.plan.local_test_share)


def _asked(
    run: TrainedRun,
    flat: Tensor,
    request: ForgetRequest,
    cohort: Cohort,
    reference: Tensor | None,
    name: str,
) -> "tuple[Evidence, _OnServer]":
    """Return what the clients say of a model, and what is known of it on test data."""
    has_test = run.test is not None and len(run.test) > 0
    most = None if has_test else _most_tested(run, cohort)
    questions = Questions(request, run.layout, flat, reference, run.forgotten, run.task, most)
    evidence = gather(cohort, questions, f"audit of {name}")
    on_test = _test(run, flat, reference) if has_test else _OnServer.of_clients(evidence.tested)
    return evidence, on_test


def _tested(run: TrainedRun, request: ForgetRequest, on_server: "_OnServer") -> Tensor:
    """Return which test examples count: those of no class that is forgotten, shape [|D_t|], bool."""
    classes = Drop.joined(each.drop for each in (request, *run.forgotten)).classes
    return ~selection_mask(on_server.groups, classes, ())


def measure_own_models(
    run: TrainedRun,
    lineage: str,
    request: ForgetRequest,
    cohort: Cohort,
    settings: AuditSettings,
    reference_lineage: str | None = None,
    name: str = "model",
) -> Measurement:
    """Measure the models of their own that the remaining clients keep; figures are means over these.

    Parameters are those of `measure`, but the models are those of a lineage, and the retrained
    ones those of `reference_lineage`, None if it is the same or there is none. Forgotten clients are not
    asked.
    """
    began = time.perf_counter()
    questions = OwnModelQuestions(request, cohort, reference_lineage, run.forgotten, run.test, run.task)
    asked = cohort.without([*request.clients, *run.forgotten_clients]).on_lineage(lineage)
    evidence = gather(asked, questions, f"audit of {name}")
    missing = {i: reason for i, reason in evidence.missing.items() if i not in request.whole_clients}
    evidence = Evidence(evidence.answers, missing)
    on_own = questions.tested()
    on_test = _OnServer(on_own.groups, on_own.margin, on_own.correct)
    return _measurement(run, request, settings, evidence, on_test, began)


def _measurement(
    run: TrainedRun,
    request: ForgetRequest,
    settings: AuditSettings,
    evidence: Evidence,
    on_server: "_OnServer",
    began: float,
) -> Measurement:
    forget_correct, retain_correct = evidence.correct
    tested = _tested(run, request, on_server)
    test_correct, unseen = on_server.correct[tested], on_server.known_margin(tested)

    def attack(forgotten: Tensor) -> MembershipResult | None:
        return _attack(evidence, unseen, forgotten, settings, run.seed)

    def efficacy(forgotten: Tensor) -> float | None:
        found = attack(forgotten)
        return None if found is None else found.efficacy

    return Measurement(
        test_accuracy=_if_any(metrics.accuracy, test_correct),
        retain_accuracy=_if_any(metrics.accuracy, retain_correct),
        unlearning_accuracy=_if_any(metrics.unlearning_accuracy, forget_correct),
        membership=attack(evidence.margin[0]),
        attack_success_rate=on_server.attack_success_rate,
        client_accuracy=evidence.client_accuracy,
        output_distance=OutputDistance(*evidence.divergence, on_server.divergence),
        num_forget=len(forget_correct),
        num_retain=len(retain_correct),
        num_test=len(test_correct),
        num_triggered=on_server.num_triggered,
        missing=evidence.missing,
        seconds=time.perf_counter() - began,
        sums_only=evidence.sums_only,
        margins=Margins.of(evidence, unseen, run.plan.local_test_share),
        apart=parts(evidence.answers, run.staged, efficacy, on_server.success_by_kind),
    )


@dataclass(frozen=True, eq=False)
class _OnServer:
    """What is known of a model on D_t; vectors of shape [|D_t|], empty without test data.

    Margins are empty too where clients sent sums only. `attack_success_rate` is over triggered test images,
    `clean_success_rate` over the same images without the trigger.
    """

    groups: Tensor
    margin: Tensor
    correct: Tensor
    divergence: float | None = None
    attack_success_rate: float | None = None
    num_triggered: int = 0
    clean_success_rate: float | None = None

    @property
    def success_by_kind(self) -> dict[str, float | None]:
        """How many test images go to the target with the trigger, and without it; in percent."""
        return {POISONED: self.attack_success_rate, CLEAN: self.clean_success_rate}

    def known_margin(self, tested: Tensor) -> Tensor:
        """Return the margins of the tested examples; none if they are not known."""
        return self.margin[tested] if len(self.margin) else self.margin

    @staticmethod
    def of_clients(tested: HeldOutAnswer) -> "_OnServer":
        """Return what the clients said of their own test data, without examples of forgotten classes."""
        count = len(tested.correct)
        margin = torch.zeros(0) if tested.margin is None else tested.margin
        return _OnServer(torch.full((count,), -1), margin, tested.correct, tested.divergence)


def _most_tested(run: TrainedRun, cohort: Cohort) -> dict[str, int]:
    """Return how many test examples of its own each client can have."""
    share = run.plan.local_test_share
    return {
        client_id: max(info.num_test, most_held_out(share, info.known_examples))
        if info.known_examples is not None
        else wire.MAX_EXAMPLES
        for client_id, info in cohort.clients.items()
    }


def _test(run: TrainedRun, flat: Tensor, reference: Tensor | None) -> _OnServer:
    if run.test is None:
        raise ValueError("the server has no test data")
    task, test, targets = run.task, run.test, run.test.targets()
    with run.lent(flat) as model:
        outputs = outputs_of(model, test, task=task)
        rate, num_triggered = attack_success(model, test, run.trigger, task)
    divergence = None
    if reference is not None:
        with run.lent(reference) as model:
            theirs = outputs_of(model, test, task=task)
        divergence = float(metrics.output_divergence(outputs, theirs, task).mean())
    correct, clean_rate = task.scores(outputs, targets) / FULL_SCORE, None
    if run.trigger is not None and num_triggered:
        clean_rate = metrics.attack_success_rate(task.predict(outputs), targets, run.trigger.target)
    confidences = task.confidences(outputs, targets)
    return _OnServer(groups_of(test), confidences, correct, divergence, rate, num_triggered, clean_rate)


def attack_success(
    model: nn.Module, test: Examples, trigger: Trigger | None, task: Task = CLASSIFICATION
) -> tuple[float | None, int]:
    """Return the backdoor's success rate in percent, and over how many images; None over none."""
    if trigger is None:
        return None, 0
    triggered = triggered_test(test, trigger)
    return success_rate(model, triggered, trigger.target, task), len(triggered)


def success_rate(
    model: nn.Module, triggered: Examples, target: int, task: Task = CLASSIFICATION
) -> float | None:
    """Return the percentage of triggered images that a model assigns to the target; None over none."""
    if not len(triggered):
        return None
    predictions = task.predict(outputs_of(model, triggered, task=task))
    return metrics.attack_success_rate(predictions, triggered.targets(), target)


def _attack(
    evidence: Evidence, unseen: Tensor, forgotten: Tensor, settings: AuditSettings, seed: int
) -> MembershipResult | None:
    retained = evidence.margin[1]
    if min(len(retained), len(unseen)) < 2:
        return None
    generator = numpy_generator(seed, "audit", "membership")
    return membership_attack(
        retained, unseen, forgotten, generator, settings.mia_draws, settings.mia_examples
    )


def _if_any(figure: Callable[[Tensor], float], correct: Tensor) -> float | None:
    return figure(correct) if len(correct) else None
