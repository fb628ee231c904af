"""What an audit's figures do not show, in words, so that no one concludes it from a table."""

from collections.abc import Iterator, Mapping

from strategies.core.wire import client_sort_key
from unlearning.audit.apart import CLEAN
from unlearning.audit.measurement import Measurement
from unlearning.guarantees import CHOSEN_BY_DATA
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

ATTACK_TOOK_PERCENT = 50.0
"""Attack success before forgetting below which its disappearance shows nothing."""


def caveats(measurements: Mapping[str, Measurement], original: str) -> Iterator[str]:
    """Yield what cannot be concluded from the measurements of several models, and why.

    `original` names the model before forgetting, on which an attack must work to tell anything about the
    others.
    """
    before = measurements[original]
    yield from _about_data(before)
    yield from _about_backdoor(before)
    yield from _about_membership(before)
    yield from _about_clients(measurements)


def mask_caveats(origin: str) -> Iterator[str]:
    """Yield what the mask of a pruned run keeps of the forgotten data; `origin` is empty for a dense run."""
    if origin in CHOSEN_BY_DATA:
        yield (
            f"the mask ({origin}) was chosen by weights that had seen the forgotten data, so that not even "
            "retraining on it is free of them; reprune chooses it anew without them, synflow without data"
        )


def staged_caveats(run: TrainedRun, measurements: Mapping[str, Measurement]) -> Iterator[str]:
    """Yield who says which of the forgotten examples are poisoned or hard, where that is known."""
    kinds = dict.fromkeys(kind for m in measurements.values() for kind in m.apart if kind != CLEAN)
    for kind in kinds:
        clients = sorted((i for i, made in run.staged.items() if made == kind), key=client_sort_key)
        yield (
            f"which examples of client {', '.join(clients)} are {kind} is known only because the run stages "
            "it, and its simulated client says so; nobody could tell in real data"
        )


def floor_caveats(run: TrainedRun, has_floor: bool) -> Iterator[str]:
    """Yield the scale for gaps to a model retrained with another seed: a second retraining."""
    if not run.plan.privacy.hides_updates:
        return
    seen = (
        "the second retraining beside them is the floor: what two retrainings differ in by chance"
        if has_floor
        else "the floor is missing: a second retraining (audit.seeds = 1) would show what differs by chance"
    )
    yield (
        "the run's updates are masked or encrypted, so that it was retrained from other initial weights and "
        f"with another seed: every gap holds chance as well; {seen}"
    )


def privacy_caveats(run: TrainedRun, request: ForgetRequest) -> Iterator[str]:
    """Yield what differential privacy guaranteed about the forgotten data before any forgetting."""
    summary = run.privacy
    if summary is None:
        return
    where = f"δ = {summary['delta']:g}, sampling: {summary['sampling']}, accountant {summary['accountant']}"
    for client_id in request.named_clients:
        epsilon = summary["clients"].get(client_id, {}).get("epsilon")
        spent = "without a bound, as there was no noise" if epsilon is None else f"with ε = {epsilon:.3g}"
        if summary["unit"] == "client":
            yield (
                f"privacy: the model before forgetting was private {spent} for client {client_id} as a whole "
                f"({where}): that bounds what it tells about the client, before and without any forgetting"
            )
        else:
            yield (
                f"privacy: the model before forgetting was private {spent} for each single example of client "
                f"{client_id} ({where}); of the client as a whole it bounds nothing useful"
            )
    yield (
        "privacy: what was logged, and is subtracted, are the noised updates that were aggregated; a "
        "retrained model is a release of its own, counted on in the clients' accounts, and the "
        "answers of this audit are releases that no ε counts"
    )


def _about_data(before: Measurement) -> Iterator[str]:
    if before.num_test == 0:
        yield "there are no test data: test accuracy, MIA and attack success were not measured"
    if before.num_forget == 0:
        yield "no client answered for forgotten examples: UA and MIA-efficacy were not measured"


def _about_backdoor(before: Measurement) -> Iterator[str]:
    rate = before.attack_success_rate
    if rate is not None and rate < ATTACK_TOOK_PERCENT:
        yield (
            f"the backdoor did not take: its success before forgetting was {rate:.1f} %, below "
            f"{ATTACK_TOOK_PERCENT:.0f} %; no conclusion on the attack success rate is possible"
        )


def _about_membership(before: Measurement) -> Iterator[str]:
    attack = before.membership
    if attack is None:
        return
    if not attack.meaningful:
        yield (
            f"the membership attacker only guesses: on the model before forgetting it was right in "
            f"{attack.attacker_accuracy:.1f} % of cases, which guessing reaches too (up to "
            f"{attack.guessing_bound:.1f} %); no conclusion on MIA-efficacy is possible"
        )
    if attack.num_per_side < attack.num_available:
        yield (
            f"the membership attacker used {attack.num_per_side:,} of {attack.num_available:,} members, and "
            "as many non-members (audit.mia-examples)"
        )


def _about_clients(measurements: Mapping[str, Measurement]) -> Iterator[str]:
    if ids := sorted({i for m in measurements.values() for i in m.sums_only}, key=client_sort_key):
        yield (
            f"sums in place of numbers per example (audit.answers) came from client {', '.join(ids)}: the "
            "membership attack is without these"
        )
    for name, measured in measurements.items():
        if measured.missing:
            reasons = "; ".join(f"client {i}: {reason}" for i, reason in measured.missing.items())
            yield (
                f"{name}: {len(measured.missing)} did not answer ({reasons}); the figures are over "
                f"{measured.num_forget:,} forgotten and {measured.num_retain:,} retained examples"
            )
    if len({frozenset(m.missing) for m in measurements.values()}) > 1:
        yield "not all models were measured on the same clients: their gaps are partly differences of data"
