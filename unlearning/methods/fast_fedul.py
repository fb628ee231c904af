"""Fast-FedUL: subtract a client's logged updates and an estimate of their influence on later updates.

Huynh, Nguyen, Nguyen, Nguyen, Weidlich, Nguyen, Aberer, "Fast-FedUL: A Training-Free Federated Unlearning
with Provable Skew Resilience", ECML PKDD 2024, arXiv 2405.18040. Round by round, with the weights w_{t,i}
that were used,

    u ← β_t u + Σ_{c ∈ target} w_{t,c} ΔM_t^c,    β_t = 1 − α Σ_{i selected, i ∉ target} w_{t,i},
    M' = M_F − θ u

(see `unlearning.central.skew`). α = 0 with θ = 1 is `subtract`. The result can be the start of `distill`:
``forget.distill.start = "fast-fedul"``.

Guarantee: approximate; exact where each remaining client's update is linear in the global model, with slope
−α. Needs: the log of every round; no client. Cost: no round; one pass over the log with one running vector.
"""

from collections.abc import Collection, Iterator

from torch import Tensor

from strategies.log.reading import LogReader, by_parts
from unlearning.central.skew import RoundShare, subtract_with_skew
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.traits.fast_fedul import NAME, TRAITS, SkewSettings


def round_shares(
    log: LogReader, targets: Collection[str], earlier: Collection[str] = ()
) -> Iterator[RoundShare]:
    """Yield what each round of the log holds of the targets and of the others, in order.

    Clients in `earlier` were forgotten before: their later updates, and so what those undid, are not in the
    model any more.
    """
    for server_round in log.rounds():
        entries = log.entries(server_round)
        others = sum(entry.weight for entry in entries if entry.client_id not in {*targets, *earlier})
        named = [entry for entry in entries if entry.client_id in targets]
        yield RoundShare(others, [(e.weight, log.delta(server_round, e.client_id)) for e in named])


def subtracted(job: ForgetJob) -> Outcome:
    """Return the model without the estimated influence of the targets; see `subtracted_with`."""
    return subtracted_with(job, job.settings.own(NAME, SkewSettings))


def subtracted_with(job: ForgetJob, settings: SkewSettings) -> Outcome:
    """Return the model without the estimated influence of the targets."""
    final, targets, excluded = job.run.final, job.participants, job.excluded_clients

    def without(log: LogReader, part: slice) -> Tensor:
        return subtract_with_skew(final[part], round_shares(log, targets, excluded), settings)

    flat = by_parts(job.log, without)
    return Outcome(flat, job.absence_notes, settings.model_dump())


METHOD = Method.of(TRAITS, run=subtracted)
