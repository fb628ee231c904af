"""FedMD's client half: transfer learning, logits on public data, digest and revisit.

The client's model lies in its state and in no message. A client without a model, in its first round or after
its state was lost, makes one by transfer learning.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.client.distillation import distillation_loss
from strategies.client.evaluation import evaluate, outputs_of
from strategies.client.own_models import ClientState
from strategies.client.settings import TrainSettings
from strategies.client.training import batches, local_train, make_optimizer
from strategies.client.work import ClientReply, ClientWork
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.fedmd.privacy import clip_rows, count_answer, epsilon_of
from strategies.fedmd.settings import FedMDSettings
from strategies.layers.privacy.noise import noised
from strategies.server.reports import COUNT, LOSS, PERCENT, PRIVATE
from strategies.task import CLASSIFICATION, Task

QUERY = "query.fedmd"
"""Message type. Asks for logits on the alignment subset."""
DIGEST = "train.fedmd"
"""Message type. Brings the consensus, which the client digests before it revisits its own data."""

KIND = "fedmd"
"""What the names of the records of its models in a client's state begin with."""
LOGITS = "logits"
"""Array, both ways. Answers to the alignment subset or their consensus, shape [n, classes], float32."""
ALIGNMENT = "alignment"
"""list[int], server to client. Positions in the public data."""
ORIGIN = "origin-course"
"""str, server to client, where a lineage starts from another: its name; empty: the run's own."""
FROM_START = "from-start"
"""bool, server to client, beside `ORIGIN`. Whether it starts from what that was before its first round."""
BASELINE = "baseline-accuracy"
"""float in [0, 100], client to server. Accuracy after transfer learning, before the first round."""
UPPER_BOUND = "upper-bound"
"""float in [0, 100], client to server. Accuracy of the client's model, trained on all clients' data."""
ANEW = "made-anew"
"""1, client to server. The client had no state in a later round than the first and made a new model."""

REPORTS = {ANEW: COUNT, wire.EPSILON: PRIVATE[wire.EPSILON]}
"""What clients report with their logits."""
RETURNS = {
    wire.TRAIN_LOSS: LOSS,
    wire.ACCURACY: PERCENT,
    BASELINE: PERCENT,
    UPPER_BOUND: PERCENT,
    ANEW: COUNT,
}
"""What they report once they have digested the consensus."""


@dataclass(frozen=True, eq=False)
class FedMDWork(ClientWork):
    """The arguments of FedMD's client half."""

    @staticmethod
    def of(work: ClientWork) -> "FedMDWork":
        """Return the same as this class."""
        return FedMDWork(**vars(work))

    @property
    def own(self) -> FedMDSettings:
        """FedMD's settings."""
        return self.settings.own(FedMDSettings)

    @property
    def aligned(self) -> Examples:
        """The public examples that the message is about.

        Raises
        ------
        ValueError
            If a position lies outside the public data.
        """
        index = torch.tensor(wire.config_list(self.config, ALIGNMENT), dtype=torch.int64)
        if len(index) == 0 or int(index.min()) < 0 or int(index.max()) >= len(self.public):
            raise ValueError(f"alignment: positions outside the {len(self.public)} public examples")
        return self.public.take(index)

    def generator(self, purpose: str) -> torch.Generator:
        """Return the generator of this client for a purpose in this round."""
        return torch_generator(self.seed, "fedmd", self.client_id, purpose, self.server_round)

    @cached_property
    def client_state(self) -> ClientState:
        """The client's own model in the message's lineage."""
        return ClientState(self.state, str(self.config.get(wire.LINEAGE, "")), KIND)


def answer_query(work: FedMDWork) -> ClientReply:
    """Return the logits of the client's model on the alignment subset, clipped and noised if asked to."""
    model, metrics = present_model(work)
    clipped = clip_rows(outputs_of(model, work.aligned, task=work.task), work.own.logit_clip)
    logits, spent = released_logits(work, clipped)
    numbers = {**metrics, **spent, wire.NUM_EXAMPLES: len(work.examples)}
    return ClientReply(numbers, wire.record_of({LOGITS: logits}))


def released_logits(work: FedMDWork, logits: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return clipped logits with their noise, and the ε of all answers; this one is counted first."""
    settings = work.own
    if settings.logit_noise == 0:
        return logits, {}
    total = count_answer(work.state, settings.logit_noise, len(logits))
    stream = work.randomness.stream(work.seed, "fedmd", work.client_id, "noise", work.server_round)
    released = noised(logits, settings.logit_noise, settings.logit_clip, stream)
    return released, {wire.EPSILON: epsilon_of(total, settings.logit_delta)}


def answer_digest(work: FedMDWork) -> ClientReply:
    """Let the model digest the consensus, revisit the client's own data, and report its accuracy."""
    model, metrics = present_model(work)
    consensus = wire.state_of(work.arrays[wire.ARRAYS])[LOGITS]
    loss = learn_round(work, model, consensus)
    work.client_state.write_model(model)
    numbers = {**metrics, wire.TRAIN_LOSS: loss, wire.NUM_EXAMPLES: len(work.examples)}
    if work.config.get(wire.MEASURE, False):
        numbers |= {**_accuracy(work, model, wire.ACCURACY), **work.client_state.figures}
    return ClientReply(numbers)


def learn_round(work: FedMDWork, model: nn.Module, consensus: Tensor) -> float:
    """Digest and revisit, in place; return the mean digest loss."""
    settings = work.own
    with seeded_layers(work.generator("layers"), _device(model)):
        loss = digest(model, work.aligned, consensus, settings, work.generator("digest"), work.task)
        epochs, size = settings.revisit_epochs, settings.revisit_batch_size
        _fit(work, model, work.examples, (epochs, size), work.generator("revisit"))
    return loss


def digest(
    model: nn.Module,
    examples: Examples,
    consensus: Tensor,
    settings: FedMDSettings,
    generator: torch.Generator,
    task: Task = CLASSIFICATION,
) -> float:
    """Train a model in place towards the consensus; return the mean loss over the steps, 0 without any.

    Parameters
    ----------
    examples
        The alignment examples; their targets are not read.
    consensus
        Logits, shape [n, classes].
    """
    steps = settings.digest_epochs * -(-len(examples) // settings.digest_batch_size)
    if steps == 0:
        return 0.0
    device = _device(model)
    there, targets = examples.to(device), consensus.to(device)
    how = TrainSettings(optimizer="adam", learning_rate=settings.step_size)
    optimizer = make_optimizer(list(model.parameters()), how)
    model.train()
    total = torch.zeros((), device=device)
    for index in batches(len(examples), settings.digest_batch_size, steps, generator):
        inputs, _ = there.batch(index)
        loss = digest_loss(task.forward(model, inputs), targets[index.to(device)], settings, task)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
    return float(total) / steps


def digest_loss(
    logits: Tensor, consensus: Tensor, settings: FedMDSettings, task: Task = CLASSIFICATION
) -> Tensor:
    """Return how far logits are from the consensus, a scalar.

    Parameters
    ----------
    logits, consensus
        Shape [n, classes].
    settings
        ``mae``: mean |f − f̃| over all entries. ``kl``: T²·KL(softmax(f̃/T) ‖ softmax(f/T)), the mean over the
        rows (see `distillation_loss`).
    """
    if settings.digest_loss == "mae":
        return functional.l1_loss(logits, consensus)
    return distillation_loss(logits, consensus, settings.digest_temperature, task)


def present_model(work: FedMDWork) -> tuple[nn.Module, dict[str, float | int]]:
    """Return the client's model and numbers to report; transfer learning makes a missing model."""
    model = work.build_model()
    if work.client_state.read_model(model) or _started_from_another_lineage(work, model):
        return model, {}
    transfer(work, model)
    expected = work.server_round == 1 or work.config.get(FROM_START, False)
    return model, ({} if expected else {ANEW: 1})


def _started_from_another_lineage(work: FedMDWork, model: nn.Module) -> bool:
    """Start a lineage from another one's present or first model; return whether there was one."""
    if ORIGIN not in work.config:
        return False
    origin = ClientState(work.state, str(work.config[ORIGIN]), KIND)
    if not origin.read_model(model, transferred=bool(work.config.get(FROM_START, False))):
        return False
    work.client_state.write_model(model)
    work.client_state.write_figures(origin.figures)
    return True


def transfer(work: FedMDWork, model: nn.Module) -> None:
    """Train the initial model on the public and then on the client's own data; measure, and keep it.

    Where the upper bound is wanted, a copy of the model goes on from the public data with all clients' data.
    """
    settings, state = work.own, work.client_state
    _transfer_step(work, model, work.public.take(torch.arange(len(work.public))), "public")
    bound: dict[str, float] = {}
    if settings.upper_bound and not work.config.get(wire.LINEAGE):
        before = wire.Layout.of(model.state_dict()).flatten(model.state_dict())
        _transfer_step(work, model, work.pooled(), "pooled")
        bound = _accuracy(work, model, UPPER_BOUND)
        wire.load_flat(model, before, wire.Layout.of(model.state_dict()))
    _transfer_step(work, model, work.examples, "private")
    state.write_model(model)
    if settings.keep_transferred:
        state.keep_transferred()
    state.write_figures(_accuracy(work, model, BASELINE) | bound)


def _transfer_step(work: FedMDWork, model: nn.Module, examples: Examples, purpose: str) -> None:
    settings = work.own
    public = purpose == "public"
    epochs = settings.public_epochs if public else settings.private_epochs
    size = settings.public_batch_size if public else settings.private_batch_size
    # The same in every round: a client that lost its state makes the same model again.
    batch_generator = torch_generator(work.seed, "fedmd", work.client_id, purpose)
    with seeded_layers(
        torch_generator(work.seed, "fedmd", work.client_id, purpose, "layers"), _device(model)
    ):
        _fit(work, model, examples, (epochs, size), batch_generator)


def _fit(
    work: FedMDWork,
    model: nn.Module,
    examples: Examples,
    passes: tuple[int, int],
    generator: torch.Generator,
) -> None:
    """Train a model in place; `passes` are the epochs and the batch size."""
    epochs, batch_size = passes
    if epochs == 0:
        return
    train = TrainSettings(
        optimizer="adam", learning_rate=work.own.step_size, batch_size=batch_size, local_epochs=epochs
    )
    local_train(model, examples, train, generator, task=work.task)


def _accuracy(work: FedMDWork, model: nn.Module, key: str) -> dict[str, float]:
    test = work.test()
    return {} if test is None else {key: evaluate(model, test, task=work.task).accuracy}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
