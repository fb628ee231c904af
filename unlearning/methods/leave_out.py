"""Leave out how a client's updates differ from the others', as far as that is left; then train one pass.

A combination of published methods, made for this project. With w_{t,c} the weight that was used for the
target c in round t, δ_{t,c} its update and δ̄_t the weighted mean of the remaining clients' updates,

    u ← β_t u + Σ_{c ∈ target} w_{t,c} (δ_{t,c} − δ̄_t),    β_t = 1 − α Σ_{i selected, i ∉ target} w_{t,i},
    M' = M_F − u,    then E rounds of one local pass of the remaining clients, as in `finetune`.

At α = 0, M' is the renormalised form of `subtract` (Wu, Zhu, Mitra, arXiv 2201.09441): the initial model and
the others' mean updates, Σ_t δ̄_t. These were made at models that held the target's deviations, and pulled
them back, as in `fast_fedul` (Huynh et al., arXiv 2405.18040), whose decay is used; there it is of the update
itself, most of which the others would have made as well. So nothing has to be taught again that the others
know, and no teacher has seen the client. A deviation of the first of T rounds is left with (1 − α)^T, so a
fixed α would depend on the length of the run; here α = 2 / T.

Guarantee: approximate; exact where each remaining client's update is linear in the global model, with slope
−α, and E = 0. Of what the remaining data do not contradict, such as a backdoor, less is undone than α says:
a part may be left. Needs: the log of every round; the remaining clients if E > 0. Cost: E rounds of a single
pass, by default one.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from strategies.log.index import Entry
from strategies.log.reading import LogReader, by_parts, mean_update
from unlearning.central.skew import RoundShare, subtract_with_skew
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.methods.finetune import finetuned_from
from unlearning.traits.fast_fedul import SkewSettings
from unlearning.traits.leave_out import NAME, TRAITS, LeaveOutSettings

UNDONE = 2.0
"""α times the rounds of the run, where no α is given."""


def usual_alpha(rounds: int) -> float:
    """Return the α for a run of at least one round.

    Examples
    --------
    >>> usual_alpha(20), usual_alpha(1)
    (0.1, 1.0)
    """
    return min(1.0, UNDONE / rounds)


def deviations(
    log: LogReader, targets: Collection[str], earlier: Collection[str] = ()
) -> Iterator[RoundShare]:
    """Yield how the targets' updates differ from the others' mean, round by round.

    Clients in `earlier` were forgotten before and are no others. In a round of the targets alone the others'
    mean is 0, as nothing would have happened.
    """
    by_round: dict[int, list[Entry]] = {server_round: [] for server_round in log.rounds()}
    for entry in log.entries():
        by_round[entry.round].append(entry)
    for entries in by_round.values():
        named = [entry for entry in entries if entry.client_id in targets]
        others = [entry for entry in entries if entry.client_id not in {*targets, *earlier}]
        weight = sum(entry.weight for entry in others)
        if not named:
            yield RoundShare(weight)
            continue
        mean = mean_update(log, others)
        deltas = ((e.weight, log.delta_of(e).double()) for e in named)
        yield RoundShare(weight, [(w, delta if mean is None else delta - mean) for w, delta in deltas])


def left_out(job: ForgetJob) -> Outcome:
    """Return the model without what is left of the targets' deviations, after a pass of the others."""
    run, own = job.run, job.settings.own(NAME, LeaveOutSettings)
    alpha = usual_alpha(run.plan.rounds) if own.alpha == "auto" else own.alpha
    targets, excluded, skew = job.participants, job.excluded_clients, SkewSettings(alpha=alpha)

    def without(log: LogReader, part: slice) -> Tensor:
        return subtract_with_skew(run.final[part], deviations(log, targets, excluded), skew)

    flat = by_parts(job.log, without)
    if not own.epochs or torch.equal(flat, run.final):
        return Outcome(flat, job.absence_notes, {"alpha": alpha})
    outcome = finetuned_from(job, flat, own)
    return replace(outcome, details={**outcome.details, "alpha": alpha})


METHOD = Method.of(TRAITS, run=left_out)
