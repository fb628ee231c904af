"""Checks of a model against the data, before any work: one line says what does not fit, and where.

A model is given two inputs. The deepest layer that has begun and not ended when it fails is the one named.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.client.evaluation import eval_mode
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, Inputs, on_device
from strategies.core.seeds import torch_generator
from strategies.models import travelling
from strategies.task import CLASSIFICATION, FULL_SCORE, Task

_LONGEST = 200
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What a model raises that is given what it does not take."""


@dataclass(frozen=True, eq=False)
class Expected:
    """What a model is expected to take and to give.

    Parameters
    ----------
    subject
        What a line about the model begins with: the key that names it, and its name.
    inputs
        Two examples' inputs; None: there are none to try it on.
    outputs
        Shape of one example's output; None: any.
    """

    subject: str
    inputs: Inputs | None
    outputs: tuple[int, ...] | None

    @property
    def shape(self) -> str:
        """The shape of one example's input, for people."""
        if self.inputs is None:
            return "unknown"
        if isinstance(self.inputs, Mapping):
            return ", ".join(f"{name} {tuple(each.shape[1:])}" for name, each in self.inputs.items())
        return str(tuple(self.inputs.shape[1:]))

    @property
    def hint(self) -> str:
        """What may be wrong with whole numbers; empty if all inputs are others."""
        if all(each.is_floating_point() for each in _tensors(self.inputs)):
            return ""
        return "; some inputs are whole numbers, as tokens are: give quantities as floats"


def _tensors(inputs: Inputs | None) -> list[Tensor]:
    if inputs is None or isinstance(inputs, Tensor):
        return [] if inputs is None else [inputs]
    return list(inputs.values())


def two_inputs(shape: Sequence[int]) -> Tensor:
    """Return two made-up inputs, uniform in [0, 1), shape [2, *shape]."""
    return torch.rand(2, *shape, generator=torch_generator(0, "two inputs"))


def two_examples(examples: Examples) -> tuple[Inputs, Tensor]:
    """Return inputs and targets of the first two examples, of a single one twice; there must be one."""
    return examples.batch(torch.tensor([0, min(1, len(examples) - 1)]))


def check_model(model: nn.Module, expected: Expected) -> None:
    """Refuse a model that cannot be trained on the data; its buffers are as before afterwards.

    Raises
    ------
    BadInput
        If it does not take the inputs, gives something else than a row for each, is not finite, or has
        nothing to train.
    """
    _check_entries(model, expected.subject)
    if expected.inputs is None:
        return
    kept = travelling.changeable(model)
    try:
        for training in (False, True):
            _check_outputs(outputs_of_two(model, expected, training=training), expected)
    finally:
        travelling.put_back(kept)


def check_task(task: Task, outputs: Tensor, targets: Tensor) -> None:
    """Refuse a task of the user's that does not judge two examples as `Task` asks.

    Raises
    ------
    BadInput
        If losses or scores are no number for each, predictions no row, or scores not within 0 and 100.
    """
    targets = targets.to(outputs.device)
    with torch.no_grad():
        losses, scores = task.losses(outputs, targets), task.scores(outputs, targets)
        predicted = task.predict(outputs)
    for member, found in (("losses", losses), ("scores", scores), ("predict", predicted)):
        shape, exact = _shape(found), member != "predict"
        if shape[:1] != (2,) or (exact and len(shape) > 1):
            each = "one number for each, shape (2,)" if exact else "one row for each"
            raise BadInput(f"run.project: its task's {member} of two examples gives {shape}, wanted {each}")
    if not bool(((scores >= 0) & (scores <= FULL_SCORE)).all()):
        raise BadInput(f"run.project: its task's scores: given {scores.tolist()}, allowed 0 to 100")


def check_built_in_task(task: Task, outputs: Tensor, targets: Tensor, data: str) -> None:
    """Refuse data whose targets a built-in task does not judge, as its settings are.

    Raises
    ------
    BadInput
        Naming the task and the shapes, or as the task says.
    """
    try:
        check_task(task, outputs, targets)
    except BadInput:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadInput(
            f"task.name: given {task.name!r}, which does not judge the targets of {data!r}: those of two "
            f"examples have shape {tuple(targets.shape)}, the model's outputs {tuple(outputs.shape)}; "
            "a project brings targets and a model of any shape (lethe new)"
        ) from error


def takes(model: nn.Module, expected: Expected) -> bool:
    """Whether a model takes the two inputs."""
    try:
        outputs_of_two(model, expected)
    except BadInput:
        return False
    return True


def outputs_of_two(model: nn.Module, expected: Expected, *, training: bool = False) -> Tensor:
    """Return what a model makes of the two inputs, in training or in evaluation mode.

    Raises
    ------
    BadInput
        If it does not take them; names the layer.
    """
    entered: list[str] = []
    device = next(model.parameters()).device
    inputs = torch.empty(0) if expected.inputs is None else on_device(expected.inputs, device)
    try:
        with eval_mode(model), _followed(model, entered):
            model.train(training)
            return CLASSIFICATION.forward(model, inputs)
    except _FAILURES as error:
        reason = " ".join(str(error).split())[:_LONGEST]
        at = f" at layer '{entered[-1]}'" if entered and entered[-1] else ""
        raise BadInput(
            f"{expected.subject} does not take inputs of shape {expected.shape}{at}: {reason}{expected.hint}"
        ) from error


@contextmanager
def _followed(model: nn.Module, entered: list[str]) -> Iterator[None]:
    """Keep the names of the layers that have begun and not ended."""
    hooks = []
    for name, layer in model.named_modules():

        def begin(_: nn.Module, __: object, name: str = name) -> None:
            entered.append(name)

        def end(_: nn.Module, __: object, ___: object) -> None:
            entered.pop()

        hooks += [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_entries(model: nn.Module, subject: str) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise BadInput(f"{subject} has no trainable parameter: there is nothing to learn")
    for entry, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.is_floating_point():
            raise BadInput(f"{subject}: parameter '{entry}' is {parameter.dtype}, wanted real numbers")
    for entry, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.numel() and not all(map(math.isfinite, torch.stack(torch.aminmax(tensor)).tolist())):
            raise BadInput(f"{subject}: '{entry}' is not finite before any training")


def _shape(given: object) -> tuple[int, ...] | str:
    return tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"


def _check_outputs(outputs: object, expected: Expected) -> None:
    given = _shape(outputs)
    wanted = "two rows" if expected.outputs is None else f"logits of shape {(2, *expected.outputs)}"
    fits = isinstance(given, tuple) and given[:1] == (2,) and expected.outputs in {None, given[1:]}
    if not fits:
        raise BadInput(f"{expected.subject} answers two inputs with {given}, wanted {wanted}")
    if isinstance(outputs, Tensor) and not bool(outputs.isfinite().all()):
        raise BadInput(f"{expected.subject} answers with values that are not finite")
