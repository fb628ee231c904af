"""Fisher forgetting (FF) over a federation: noise on the weights that matter least for retained data.

Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933, as used by
Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 3; the central form is `unlearning.central.fisher`:

    H = (1/n) Σ_k Σ_{x ∈ D_r,k} Σ_y p(y|x) (∂ log p(y|x) / ∂θ)²,   n = Σ_k |D_r,k|,
    θu = θo + sqrt(α / H)·ε,  ε ~ N(0, I),  1/H clamped.

Each client k sends its sum over D_r,k and its count, so H is that of the same examples in one place, and the
server draws the noise. Only where a class is forgotten as a whole are its rows of the head set to zero first;
for clients and samples, other examples of their classes stay and need those rows.

Guarantee: none for networks; the noise hides D_f only as far as the loss is quadratic around θo, and, as it
repeats with the run's seed, only from those who do not know that. Needs: clients that keep data online. At
α = 0 the parameters get no noise. Cost: one visit to every such client, of a backward pass per example and
class.
"""

from strategies.core import wire
from strategies.core.errors import LetheError
from unlearning.central.fisher import add_noise, fisher_sum, without_class_rows
from unlearning.central.gradients import ExampleSum
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import (
    FederatedWork,
    clients_with_retained,
    received_model,
)
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.fisher import NAME, TRAITS, FisherSettings

ACTION = "query.fisher"
DIAGONAL = "diagonal"
"""Array, client to server. Σ_x Σ_y p(y|x) (∂ log p)² over the client's retained examples."""


def fisher_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: the client's part of the Fisher diagonal, over its retained data."""
    return answer_with({DIAGONAL: fisher_sum(received_model(work), work.retain, task=work.task)})


def with_fisher_noise(job: ForgetJob) -> Outcome:
    """Return the model with noise in the shape of the retained data's Fisher diagonal."""
    run, work = job.run, FederatedWork(job, 1)
    settings = job.settings.own(NAME, FisherSettings)
    diagonal = retained_diagonal(job, work)
    model = run.model(run.final)
    start = without_class_rows(model, job.request.classes) if job.request.classes else model
    noisy = add_noise(start, diagonal.mean, settings, job.generator("fisher"))
    details = {**settings.model_dump(), "examples": diagonal.count}
    return Outcome(run.layout.flatten(noisy.state_dict()), job.absence_notes, details)


def retained_diagonal(job: ForgetJob, work: FederatedWork) -> ExampleSum:
    """Return the sum over the retained examples of all clients, whose mean is H.

    LetheError if none answers.
    """
    run, cohort = job.run, clients_with_retained(job)
    records = {wire.ARRAYS: wire.FlatRecord(run.final, run.layout)}
    sums = ask_for_sums(cohort, ACTION, job.spec, records, {DIAGONAL: run.num_trained})
    work.advance({"clients": len(sums)})
    if not sums:
        raise LetheError("fisher: no client that keeps data answered usefully")
    return ExampleSum.join(each[DIAGONAL] for each in sums.values())


METHOD = Method.of(TRAITS, run=with_fisher_noise, actions={ACTION: fisher_client})
