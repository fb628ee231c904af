"""Influence unlearning (IU) over a federation: one Newton-like step that takes D_f out of everyone's loss.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 3; the central form is `unlearning.central.influence`:

    θu = θo + α F⁻¹ v,    v = (1/n) (Σ_{D_f} ∇ℓ − (|D_f| / |D_r|) Σ_{D_r} ∇ℓ),
    F = λI + (1/N) Σ g gᵀ  over N retained examples.

Every sum over examples is a sum over clients of their sums, so the step is that of the same examples in one
place. F⁻¹v is taken by conjugate gradients, which need F only in products Fx: each is one visit to the
clients that hold some of the N examples (see `unlearning.central.inverse`). α is the shortest length after
which D_f looks like data that nobody trained on (`unlearning.methods.stopping`): some are tried in one visit
to those that hold it, and then some between the last that is too short and the first that is not. Where
lengths are given, it is that of them that raises the loss on D_f most without costing too much accuracy on
D_r; each client evaluates all of them on its own data in one visit and, in a second one, some around the
best. Test data play no part.

Guarantee: none for networks; a first-order estimate of the minimum without D_f. A sum over few examples shows
the server much of them. Needs: every client online, those that hold D_f included; one that falls silent after
the first visit ends the work. Cost: three visits to every client and one per product, some dozens.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import torch
from flwr.app import Array, ArrayRecord
from torch import Generator, Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples
from strategies.server.cohort import Cohort
from strategies.task import Task
from unlearning.central.gradients import ExampleSum, Objective, gradient_sum
from unlearning.central.influence import (
    AlphaTrial,
    InfluenceSettings,
    choose_alpha,
    finer_alphas,
    influence_vector,
    shortest_alpha,
    unit_length,
)
from unlearning.central.inverse import conjugate_gradient_product, fisher_product_sum
from unlearning.central.parameters import moved
from unlearning.central.stopping import SHARES, Goal, Standing
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import clients_asked, clients_with_forgotten, received_model
from unlearning.methods.stopping import (
    SIZE,
    STANDING,
    Sums,
    goal_entries,
    goal_in,
    goal_of,
    joined,
    measured,
    standing_sum,
    told,
)
from unlearning.methods.sums import answer_with, ask_for_sums
from unlearning.traits.influence import NAME, TRAITS, InfluenceKeys, parsed_alphas

GRADIENTS = "query.gradients"
PRODUCT = "query.fisher_product"
TRIALS = "query.influence_trials"
STANDINGS = "query.influence_standings"

VECTOR = "vector"
"""Array of a record of the same name, server to client. x of a product or F⁻¹v of the trials; float64."""
CHOSEN = "fisher-examples"
"""list[int], server to client, with a product. Which of its retained examples F is made of."""
ALPHAS = "alphas"
"""list[float], server to client, with the trials. Lengths of the step."""
FORGET, RETAIN = "forget", "retain"
MAX_PRODUCTS = 200
"""Products after which the damping is called too small."""


def central_settings(own: InfluenceKeys) -> InfluenceSettings:
    """Return the method's keys as the central form knows them."""
    values = own.model_dump(exclude={"tolerance", "alphas"})
    return (
        InfluenceSettings(**values)
        if own.alphas == "auto"
        else InfluenceSettings(**values, alphas=parsed_alphas(own.alphas))
    )


# Client half


def gradients_client(work: ForgetWork) -> ClientAnswer:
    """Return the sums of gradients over the forgotten and over the retained data."""
    model = received_model(work)
    parts, objective = {FORGET: work.forget, RETAIN: work.retain}, Objective(work.task)
    return answer_with({name: gradient_sum(model, part, objective) for name, part in parts.items()})


def product_client(work: ForgetWork) -> ClientAnswer:
    """Return Σ g (gᵀx) over the retained examples that F is made of."""
    examples = work.retain.subset(wire.config_list(work.config, CHOSEN))
    model, vector = received_model(work), _received_vector(work)
    return answer_with({RETAIN: fisher_product_sum(model, examples, vector, Objective(work.task))})


def trials_client(work: ForgetWork) -> ClientAnswer:
    """Return the sum of scores on D_r and the sum of losses on D_f, for no step and for each length."""
    model, direction = received_model(work), _received_vector(work)
    candidates = [moved(model, alpha * direction) for alpha in (0.0, *work.config[ALPHAS])]
    correct = [_tally(candidate, work.retain, work.task)[0] for candidate in candidates]
    losses = [_tally(candidate, work.forget, work.task)[1] for candidate in candidates]
    return answer_with(
        {
            RETAIN: ExampleSum(torch.tensor(correct, dtype=torch.float64), len(work.retain)),
            FORGET: ExampleSum(torch.tensor(losses, dtype=torch.float64), len(work.forget)),
        }
    )


def standings_client(work: ForgetWork) -> ClientAnswer:
    """Return where the client's part of D_f stands after no step and after each length."""
    model, direction, goal = received_model(work), _received_vector(work), goal_in(work.config) or Goal()
    rows = [
        standing_sum(moved(model, alpha * direction), work.forget, goal, work.task).total
        for alpha in work.config[ALPHAS]
    ]
    return answer_with({STANDING: ExampleSum(torch.cat(rows), len(work.forget))})


def _tally(model: nn.Module, examples: Examples, task: Task) -> tuple[float, float]:
    """Return the sum of scores, each from 0 to 1, and the sum of losses."""
    outputs, targets = outputs_of(model, examples, task=task).double(), examples.targets()
    right = float((task.scores(outputs, targets) / 100).double().sum())
    return right, float(task.summed_loss(outputs, targets))


def _received_vector(work: ForgetWork) -> Tensor:
    return torch.from_numpy(work.arrays[VECTOR][VECTOR].numpy().copy())


# Server half


@dataclass(frozen=True)
class Clients:
    """The clients that hold some of D_f or D_r, and what every message to them carries."""

    job: ForgetJob
    cohort: Cohort

    def restricted_to(self, client_ids: Collection[str]) -> "Clients":
        """Return the same for some of the clients only."""
        return Clients(self.job, self.cohort.without(i for i in self.cohort.clients if i not in client_ids))

    def sums(
        self,
        message_type: str,
        sizes: Mapping[str, int],
        vector: Tensor | None = None,
        entries: Callable[[str], Mapping[str, Any]] = lambda client_id: {},
    ) -> dict[str, dict[str, ExampleSum]]:
        """Return their sums about the model before forgetting, in the order of their names."""
        records: dict[str, ArrayRecord] = {wire.ARRAYS: self._model}
        if vector is not None:
            records[VECTOR] = ArrayRecord({VECTOR: Array(vector.numpy())})
        return ask_for_sums(self.cohort, message_type, self.job.spec, records, sizes, entries)

    def require(self, answers: Sums, wanted: Iterable[str]) -> None:
        """Raise `LetheError` if one of the clients that are needed did not answer."""
        for client_id in wanted:
            if client_id not in answers:
                raise LetheError(
                    f"influence: client {client_id} is needed and failed: {self._reason(client_id)}"
                )

    def notes(self, answers: Sums, loss: str) -> list[str]:
        """Return a note for each client that did not answer; `loss` says what is lost by that."""
        silent = [i for i in self.cohort.clients if i not in answers]
        return [f"client {i} failed, {loss}: {self._reason(i)}" for i in silent]

    def _reason(self, client_id: str) -> str:
        return {fault.client_id: fault.reason for fault in self.cohort.faults}.get(client_id, "no answer")

    @cached_property
    def _model(self) -> ArrayRecord:
        return wire.FlatRecord(self.job.run.final, self.job.run.layout)


def draw_examples(counts: Mapping[str, int], num_examples: int, generator: Generator) -> dict[str, list[int]]:
    """Draw from all retained examples, as if they lay in one place client by client.

    Parameters
    ----------
    counts
        Client-id -> number of its retained examples.
    num_examples
        How many to draw; all where there are fewer.
    generator
        On the CPU.

    Returns
    -------
    dict
        Client-id -> positions in its retained examples; clients of which none is drawn are not in it.
    """
    drawn = torch.randperm(sum(counts.values()), generator=generator)[:num_examples]
    chosen: dict[str, list[int]] = {}
    start = 0
    for client_id, count in counts.items():
        positions = drawn[(drawn >= start) & (drawn < start + count)] - start
        if len(positions):
            chosen[client_id] = positions.tolist()
        start += count
    return chosen


@dataclass
class FisherProducts:
    """The map x -> Fx, one visit to the clients whose retained examples `chosen` make F, with damping λ."""

    clients: Clients
    chosen: Mapping[str, Sequence[int]]
    damping: float
    count: int = 0

    def __call__(self, vector: Tensor) -> Tensor:
        """Return Fx, shape [P], float64.

        LetheError if a client does not answer, as F would be another matrix.
        """
        answers = self.clients.sums(
            PRODUCT, {RETAIN: len(vector)}, vector, lambda i: {CHOSEN: list(self.chosen[i])}
        )
        self.clients.require(answers, self.chosen)
        self.count += 1
        self.clients.job.progress(self.count + 1, MAX_PRODUCTS + 2, {"products": self.count})
        return self.damping * vector + ExampleSum.join(each[RETAIN] for each in answers.values()).mean


def direction(
    clients: Clients, sums: Sums, settings: InfluenceSettings, tolerance: float
) -> tuple[Tensor, FisherProducts]:
    """Return F⁻¹v, shape [P], float64, and the products it took.

    LetheError if a set is empty, or the products do not suffice.
    """
    counts = {i: each[RETAIN].count for i, each in sums.items()}
    chosen = draw_examples(counts, settings.fisher_examples, clients.job.generator("influence"))
    products = FisherProducts(clients.restricted_to(chosen), chosen, settings.damping)
    try:
        vector = influence_vector(*(ExampleSum.join(s[n] for s in sums.values()) for n in (FORGET, RETAIN)))
        step = conjugate_gradient_product(products, vector, tolerance=tolerance, max_products=MAX_PRODUCTS)
    except ValueError as error:
        raise LetheError(f"influence: {error}") from error
    except ArithmeticError as error:
        raise LetheError(f"influence: {error} (forget.influence.damping is {settings.damping})") from error
    return step, products


def search(clients: Clients, step: Tensor, settings: InfluenceSettings) -> tuple[list[AlphaTrial], Sums]:
    """Return what each length of the step does, 0 first, and the answers to the first visit."""
    trials, answers = try_lengths(clients, step, settings.alphas)
    if finer := finer_alphas(trials, settings.max_retain_drop):
        trials += try_lengths(clients.restricted_to(answers), step, finer)[0][1:]
    return trials, answers


def try_lengths(clients: Clients, step: Tensor, alphas: Sequence[float]) -> tuple[list[AlphaTrial], Sums]:
    """Return what each length of the step does to the accuracy on D_r and the loss on D_f; 0 first."""
    sizes = dict.fromkeys((RETAIN, FORGET), len(alphas) + 1)
    answers = clients.sums(TRIALS, sizes, step, lambda _: {ALPHAS: list(alphas)})
    clients.require(answers, clients.job.participants)
    correct, losses = (ExampleSum.join(s[n] for s in answers.values()).mean for n in (RETAIN, FORGET))
    numbers = zip((0.0, *alphas), correct.tolist(), losses.tolist(), strict=True)
    return [AlphaTrial(alpha, 100.0 * accuracy, loss) for alpha, accuracy, loss in numbers], answers


def shortest_length(clients: Clients, step: Tensor, goal: Goal) -> tuple[float, Standing]:
    """Return the shortest length after which D_f meets the goal, or the longest, and where it stands."""
    job = clients.job
    holders = clients.restricted_to(clients_with_forgotten(job).clients)

    def tried(alphas: Sequence[float]) -> list[Standing]:
        entries = {ALPHAS: list(alphas), **goal_entries(goal)}
        answers = holders.sums(STANDINGS, {STANDING: SIZE * len(alphas)}, step, lambda _: entries)
        holders.require(answers, job.participants)
        return joined(job, holders.cohort, STANDINGS, answers)

    return shortest_alpha(tried, unit_length(job.run.final[job.run.trained], step))


def influenced(job: ForgetJob) -> Outcome:
    """Return the model after the influence step.

    LetheError if a client whose data are forgotten does not answer, or one fails later.
    """
    own = job.settings.own(NAME, InfluenceKeys)
    settings = central_settings(own)
    clients = Clients(job, clients_asked(job))
    sums = clients.sums(GRADIENTS, dict.fromkeys((FORGET, RETAIN), job.run.num_trained))
    clients.require(sums, job.participants)
    step, products = direction(clients, sums, settings, own.tolerance)
    choose = choice_by_goal if own.alphas == "auto" else choice_of_lengths
    alpha, notes, details = choose(clients, step, settings)
    flat = after(job, alpha * step)
    notes = [*job.absence_notes, *clients.notes(sums, "its data are not in the step"), *notes]
    return Outcome(flat, notes, {"alpha": alpha, "products": products.count, **details})


def after(job: ForgetJob, step: Tensor) -> Tensor:
    """Return the run's model after a step of the weights that train, shape [layout.size]."""
    return job.run.layout.flatten(moved(job.run.model(job.run.final), step).state_dict())


Choice = tuple[float, list[str], dict[str, Any]]
"""α, notes and details."""


def choice_by_goal(clients: Clients, step: Tensor, settings: InfluenceSettings) -> Choice:
    """Return the shortest length after which D_f meets its goal."""
    goal, notes = goal_of(clients.job)
    alpha, standing = shortest_length(clients, step, goal)
    job, run = clients.job, clients.job.run
    set_anew = run.plan.settle is not None
    if set_anew:
        standing = measured(job, clients_with_forgotten(job), run.settled(after(job, alpha * step)), goal)
    most = SHARES[-1] * unit_length(run.final[run.trained], step)
    key = "a step as long as the parameters"
    more, details = told(NAME, key, most, alpha, standing, made=set_anew)
    return alpha, [*notes, *more], details


def choice_of_lengths(clients: Clients, step: Tensor, settings: InfluenceSettings) -> Choice:
    """Return the length, of those given, that forgets most and loses little accuracy on D_r."""
    trials, answers = search(clients, step, settings)
    alpha = choose_alpha(trials, settings.max_retain_drop)
    notes = [
        *clients.notes(answers, "its data are not in the choice of the step's length"),
        *([] if alpha else ["every length that was tried costs too much accuracy: the model is unchanged"]),
    ]
    return alpha, notes, {"trials": list(map(astuple, trials))}


METHOD = Method.of(
    TRAITS,
    run=influenced,
    actions={
        GRADIENTS: gradients_client,
        PRODUCT: product_client,
        TRIALS: trials_client,
        STANDINGS: standings_client,
    },
)
