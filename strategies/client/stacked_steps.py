"""Optimiser steps of many models at once: their parameters are the rows of one matrix.

An optimiser works on each number by itself, so it takes the matrix for a single parameter; an algorithm and
the gradients see it as the tensors that the model has, with the models along a first axis.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import MethodType
from typing import final

import torch
from torch import Tensor

from strategies.client.settings import TrainSettings
from strategies.client.stackable import Stackable
from strategies.client.training import (
    Batch,
    ExampleMechanism,
    GradientAdjustment,
    StepState,
    Tensors,
    make_optimizer,
    set_rate,
)
from strategies.client.written_out import clip_factors

Shapes = Sequence[torch.Size]
"""Of the trained parameters of a model, in their order."""


def as_tensors(rows: Tensor, shapes: Shapes) -> list[Tensor]:
    """Return views of vectors, shape [k, P], as the tensors that they consist of, shape [k, ...] each."""
    ends = list(accumulate(shape.numel() for shape in shapes))
    starts = [0, *ends[:-1]]
    pieces = zip(starts, ends, shapes, strict=True)
    return [rows[:, start:end].view(len(rows), *shape) for start, end, shape in pieces]


@final
@dataclass(eq=False)
class Steps:
    """The engine of a stack: as many models as the batch has, the first ones of all.

    Parameters
    ----------
    rows
        The parameters of k models, shape [k, P]; they change in place.
    weights, noises
        Of the next batch: of its examples, shape [k, n]; and what dropout layers multiply by.
    mechanisms
        Of private trainings, one for each model; empty: they are not private.
    losses
        The sums of the losses so far, shape [k]; zeros of private trainings, which do not tell them.
    """

    model: Stackable
    settings: TrainSettings
    shapes: Shapes
    rows: Tensor
    mechanisms: Sequence[ExampleMechanism] = ()
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    noises: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make room for the gradients of all models."""
        self.losses = torch.zeros(len(self.rows), device=self.rows.device)
        self._gradients = torch.empty_like(self.rows)
        norms = [mechanism.clip_norm for mechanism in self.mechanisms]
        self._clip_norms = torch.tensor(norms, dtype=self.rows.dtype, device=self.rows.device)
        self._optimizer = self._optimizer_of(self.rows)
        self._see(self.rows)

    def keep(self, count: int) -> None:
        """Go on with the first models alone; what the optimiser knows of them stays."""
        if count == len(self._now):
            return
        before, kept = self._now, self.rows[:count]
        optimizer = self._optimizer_of(kept)
        optimizer.state[kept] = {
            key: value[:count] if isinstance(value, Tensor) and value.shape == before.shape else value
            for key, value in self._optimizer.state.get(before, {}).items()
        }
        self._optimizer = optimizer
        self._see(kept)

    def gradients(self, parameters: Tensors, batch: Batch) -> tuple[Tensors, Tensor]:
        """Return the gradients and losses of each model, whose parameters are `self.parameters`."""
        if self.mechanisms:
            return self._released(batch), self._sums
        losses = self._differentiate(batch, self.weights, self.noises)
        self._sums.add_(losses)
        if self.settings.max_gradient_norm > 0:
            return clipped_each(self._places, self.settings.max_gradient_norm), losses
        return self._places, losses

    def _released(self, batch: Batch) -> Tensors:
        """Return gradients that carry each model's noise."""
        rows = self._gradients[: len(self._now)]
        self._clip(batch, self.weights, self.noises, self._clip_norms[: len(rows)])
        for row, mechanism in zip(rows, self.mechanisms, strict=False):
            row.copy_(mechanism.release(row))
        return self._places

    def step(self, parameters: Tensors, gradients: Tensors, rate: float | None) -> Tensors:
        """Take the optimiser's step, in place."""
        if rate is not None:
            set_rate(self._optimizer, rate)
        for place, gradient in zip(self._places, gradients, strict=True):
            if gradient is not place:
                place.copy_(gradient)
        self._bare_step()
        return parameters

    def _optimizer_of(self, rows: Tensor) -> torch.optim.Optimizer:
        return make_optimizer([rows], self.settings)  # type: ignore[list-item]  # A tensor is a leaf as well

    def _see(self, rows: Tensor) -> None:
        """Have some rows for the parameters."""
        self._now = rows
        self._bare_step = bare_step(self._optimizer)
        rows.grad = self._gradients[: len(rows)]
        self.parameters = as_tensors(rows, self.shapes)
        self._places = as_tensors(rows.grad, self.shapes)
        self._sums = self.losses[: len(rows)]
        if self.mechanisms:
            self._clip = self.model.clipped_on(self.parameters, self._places)
        else:
            self._differentiate = self.model.on(self.parameters, self._places)


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return an optimiser's step without what torch puts around it, which takes as long as a layer.

    That calls hooks and tells profilers; it is to be called where torch does not differentiate.
    """
    return MethodType(inspect.unwrap(type(optimizer).step), optimizer)


def clipped_each(gradients: Sequence[Tensor], norm: float) -> list[Tensor]:
    """Return gradients of k models, shape [k, ...] each, each model's scaled down together to a norm."""
    squares = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients])  # [parameters, k]
    factors = clip_factors(squares.sum(dim=0).sqrt(), norm)
    return [g * along_first(factors, g) for g in gradients]


def along_first(values: Tensor, like: Tensor) -> Tensor:
    """Return values of shape [k] so that they multiply a tensor of shape [k, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True, eq=False)
class StackedStates:
    """The parts that an algorithm has in the local steps of k clients, as one (see `StepState`).

    Parameters
    ----------
    mu
        Shape [k].
    anchor, correction
        Shape [k, ...] each; empty if no client has any.
    """

    mu: Tensor
    anchor: Tensors
    correction: Tensors

    def first(self, count: int) -> GradientAdjustment:
        """Return the adjustment of the first clients."""
        mu, anchor = self.mu[:count], [a[:count] for a in self.anchor]
        correction = [c[:count] for c in self.correction]

        def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
            if anchor:
                pairs = zip(parameters, anchor, gradients, strict=True)
                gradients = [g + along_first(mu, g) * (w - a) for w, a, g in pairs]
            if correction:
                gradients = [g + c for g, c in zip(gradients, correction, strict=True)]
            return gradients

        return adjust


@dataclass(frozen=True, eq=False)
class EachItsOwn:
    """Adjustments of k clients that are functions of whatever kind, called one after the other."""

    adjustments: Sequence[GradientAdjustment | None]

    def first(self, count: int) -> GradientAdjustment:
        """Return the adjustment of the first clients."""

        def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
            found = [
                [g[i] for g in gradients]
                if own is None
                else own([p[i] for p in parameters], [g[i] for g in gradients])
                for i, own in enumerate(self.adjustments[:count])
            ]
            return [torch.stack(list(each)) for each in zip(*found, strict=True)]

        return adjust


def stacked_adjustment(
    adjustments: Sequence[GradientAdjustment | None],
) -> StackedStates | EachItsOwn | None:
    """Return the adjustments of k clients as one; None if there are none."""
    if all(adjust is None for adjust in adjustments):
        return None
    if not all(adjust is None or isinstance(adjust, StepState) for adjust in adjustments):
        return EachItsOwn(adjustments)
    states = [a if isinstance(a, StepState) else StepState() for a in adjustments]
    anchors = [state.anchor if state.mu > 0 else () for state in states]
    device = next(t.device for s in states for t in (*s.anchor, *s.correction))
    mu = torch.tensor([state.mu for state in states], device=device)
    return StackedStates(mu, _stacked(anchors), _stacked([state.correction for state in states]))


def _stacked(parts: Sequence[Tensors]) -> Tensors:
    """Return tensors of k clients along a first axis; zeros for those that have none."""
    shown = next((part for part in parts if part), ())
    return [
        torch.stack([part[i] if part else torch.zeros_like(like) for part in parts])
        for i, like in enumerate(shown)
    ]
