"""In what precision the forward passes of local training are computed: ``run.precision``.

Parameters, gradients as the optimiser gets them, losses, updates and all that is sent stay float32, whatever
it is; evaluation is float32 as well. ``bf16`` is torch's mixed precision (`torch.autocast`): products of
matrices and convolutions in bfloat16, on a CPU as on a GPU. ``tf32`` has a GPU round the factors of such
products to 10 binary digits behind the point, and leaves everything else.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.examples import Inputs
from strategies.task import Task

Precision = Literal["float32", "tf32", "bf16"]

PRECISION: ContextVar[Precision] = ContextVar("precision", default="float32")
"""That of the trainings which are carried out now."""


@contextmanager
def computed_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Have local training within compute in a precision on a device.

    Raises
    ------
    BadInput
        If the device has no such precision.
    """
    check_precision(precision, device)
    token = PRECISION.set(precision)
    _settle(device)
    try:
        yield
    finally:
        PRECISION.reset(token)
        _settle(device)  # As the caller has it, and not as it was: works in threads do not end in order


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device does not have; see `computed_in`."""
    if precision == "tf32" and device.type != "cuda":
        raise BadInput(
            f'run.precision: given "tf32", which run.device = "{device.type}" does not have, allowed '
            '"float32" or "bf16"'
        )


def forward(task: Task, model: Callable[..., Tensor], inputs: Inputs, device: torch.device) -> Tensor:
    """Return what a model makes of inputs on a device, in the precision of the training, as float32."""
    if PRECISION.get() != "bf16":
        return task.forward(model, inputs)
    with torch.autocast(device.type, torch.bfloat16):
        outputs = task.forward(model, inputs)
    return outputs.float()


def _settle(device: torch.device) -> None:
    """Have a GPU round products as the present precision says; a process has one setting for all threads."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = PRECISION.get() == "tf32"
        torch.backends.cudnn.allow_tf32 = PRECISION.get() == "tf32"
