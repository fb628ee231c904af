"""What the server's own data say of each client: the model is compared with the one without its updates.

With M_1 the initial and M_F the final model, S_k = Σ_t w_{t,k} ΔM_t^k what client k added, and s_k its share
of all weights, the model without the client is what the others added, scaled up to the whole:

    M_{−k} = M_1 + (M_F − M_1 − S_k) / (1 − s_k)

That is subtraction with renormalised weights (Wu, Zhu, Mitra, arXiv 2201.09441, section 3.2), with the rounds
taken together. Later updates of the others were made at models that held the client, so this is what its
updates do to the final model, not what training without it would have given.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from strategies.client.evaluation import outputs_of
from strategies.core import wire
from strategies.core.examples import Examples
from unlearning.run import TrainedRun
from unlearning.suspects.from_log import ClientSums
from unlearning.suspects.outliers import Values
from unlearning.suspects.signs import SMALLEST_SHARE, Sign

MOST_EXAMPLES = 1000
"""Of the server's examples at most so many are looked at, spread over all."""
_MOST_NUMBERS = 2e7
"""Numbers per example, client and class that are held at a time."""
_LARGEST = 1e6
"""What a loss or an output that is larger, or is no number, counts as."""


def without_client(initial: Tensor, total: Tensor, own: Tensor, share: float) -> Tensor:
    """Return M_{−k}, shapes [P]; the initial model if nobody else took part.

    `total` is M_F − M_1, `own` is S_k, and `share` is s_k, in [0, 1].
    """
    if share >= 1.0:
        return initial.double()
    return initial.double() + (total.double() - own.double()) / (1.0 - share)


def server_examples(run: TrainedRun, clients: int) -> Examples | None:
    """Return the server's examples to compare on: test data, else public ones, at most so many."""
    found = run.test if has_test(run) else run.public
    if found is None or not len(found):
        return None
    most = min(MOST_EXAMPLES, int(_MOST_NUMBERS / (clients * max(1, run.num_groups))))
    if len(found) <= most:
        return found
    places = np.linspace(0, len(found) - 1, max(most, 1)).round().astype(int)
    return found.subset(places.tolist())


def left_out(run: TrainedRun, sums: ClientSums, examples: Examples) -> list[Sign]:
    """Return the signs that server data give: the loss, if they have labels, and the classes, if there are.

    The first is how much lower the loss of each example is without the client. The second is by how much the
    client's updates, weight for weight, raise the output of one class more than the median client's do.
    """
    model, task = run.model(run.final), run.task

    def outputs(flat: Tensor) -> Tensor:
        wire.load_flat(model, run.settled(flat.float()), run.layout)
        found = outputs_of(model, examples, task=task)
        return torch.nan_to_num(found, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)

    targets = examples.targets() if has_test(run) else None
    before = outputs(run.final)
    losses, shifts = [], []
    for own, share in zip(sums, sums.shares, strict=True):
        after = outputs(without_client(run.initial, sums.total, own, share))
        if targets is not None:
            losses.append((task.losses(before, targets) - task.losses(after, targets)).double())
        if task.labelled:
            shifts.append((_centred(before) - _centred(after)) / (len(sums.clients) * share))
    found = [_loss_sign(losses)] if losses else []
    return [*found, _class_sign(shifts)] if shifts else found


def has_test(run: TrainedRun) -> bool:
    """Whether the server has labelled examples of its own."""
    return run.test is not None and len(run.test) > 0


def _centred(outputs: Tensor) -> Tensor:
    """Return logits less their mean over the classes, which alone says nothing."""
    return outputs.double() - outputs.double().mean(dim=1, keepdim=True)


def _loss_sign(losses: Sequence[Tensor]) -> Sign:
    samples = np.clip(torch.stack(list(losses), dim=1).numpy(), -_LARGEST, _LARGEST)
    shown = (-samples.mean(axis=0)).tolist()
    return Sign("loss", "example", samples[..., None], shown, "the loss on server data is lower without it")


def _class_sign(shifts: Sequence[Tensor]) -> Sign:
    samples = torch.stack(list(shifts), dim=1).numpy()
    shown = rises(samples.mean(axis=0)).max(axis=-1).tolist()
    return Sign("class", "example", samples, shown, "it raises one class on server data", largest_rise)


def rises(shifts: Values) -> Values:
    """Return by how much more than the median each client raises each class, [..., clients, classes]."""
    found: Values = shifts - np.median(shifts, axis=-2, keepdims=True)
    return found


def largest_rise(shifts: Values) -> Values:
    """Return the logarithm of each client's largest rise of a class, shape [draws, clients].

    It is near normal over clients that are alike; the rise itself has a long tail.
    """
    largest = rises(shifts).max(axis=-1)
    usual = np.median(largest, axis=-1, keepdims=True)
    found: Values = np.log(np.maximum(largest, np.maximum(SMALLEST_SHARE * usual, 1e-12)))
    return found
