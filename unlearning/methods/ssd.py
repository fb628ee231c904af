"""SSD over a federation: shrink the weights that matter more to the forgotten data than to all.

Foster, Schoepf, Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening",
AAAI 2024, arXiv 2308.07707, section 3; the central form is `unlearning.central.ssd`:

    I_{D_f} = (1/n_f) Σ_k Σ_{D_f,k} (∂ℓ)²,   I_D = (1/n) Σ_k Σ_{D_k} (∂ℓ)²,
    θ_i ← β_i θ_i  where  I_{D_f,i} > α I_{D,i},   β_i = min(λ I_{D,i} / I_{D_f,i}, 1).

Each client sends its two sums and their counts, so both importances, and the model, are those of the same
examples in one place.

Guarantee: none; what is shrunk is chosen by the gradients at the model before. A sum over few examples shows
the server much of them. Needs: all clients online, once. As I_{D_f} is at most n / n_f times I_D, an α from
there on changes nothing. Cost: one visit to every client, of a backward pass per example.
"""

from strategies.core import wire
from strategies.core.errors import LetheError
from unlearning.central.gradients import ExampleSum
from unlearning.central.ssd import chosen_alpha, dampened, importance_sum
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import FederatedWork, clients_asked, received_model
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.ssd import NAME, TRAITS, SsdSettings

ACTION = "query.ssd"
FORGET, RETAIN = "forget", "retain"


def ssd_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: sums of squared gradients over the forgotten and over the retained data."""
    model, parts = received_model(work), {FORGET: work.forget, RETAIN: work.retain}
    return answer_with({name: importance_sum(model, part, work.task) for name, part in parts.items()})


def dampened_by_clients(job: ForgetJob) -> Outcome:
    """Return the model with dampened weights; LetheError if no client that holds D_f answers."""
    run, settings = job.run, job.settings.own(NAME, SsdSettings)
    work, records = FederatedWork(job, 1), {wire.ARRAYS: wire.FlatRecord(run.final, run.layout)}
    sizes = dict.fromkeys((FORGET, RETAIN), run.num_trained)
    sums = ask_for_sums(clients_asked(job), ACTION, job.spec, records, sizes)
    work.advance({"clients": len(sums)})
    if not any(each[FORGET].count for each in sums.values()):
        raise LetheError(f"{NAME}: no client answered usefully that holds what is to be forgotten")
    forgotten, retained = (ExampleSum.join(each[name] for each in sums.values()) for name in (FORGET, RETAIN))
    model = run.model(run.final)
    flat = run.layout.flatten(dampened(model, forgotten, retained, settings).state_dict())
    changed = int((flat != run.final).sum())
    alpha = chosen_alpha(settings, forgotten.count, forgotten.count + retained.count)
    notes = (
        [] if changed else [f"no weight matters {alpha:.3g} times as much to the forgotten data: unchanged"]
    )
    details = {"alpha": alpha, "dampening": settings.dampening, "dampened": changed}
    return Outcome(flat, [*job.absence_notes, *notes], details)


METHOD = Method.of(TRAITS, run=dampened_by_clients, actions={ACTION: ssd_client})
