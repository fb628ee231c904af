"""What sums over examples can be: relations that those of every model on every data set satisfy.

A client could send any numbers as the sums of its examples. These relations leave it only sums that some
outputs on as many examples as it claims would give, as far as the states of a metric tell: counts of a
confusion matrix add up to the examples, what is right and wrong of a class adds up to the same for all
classes, a curve falls with its threshold, a square is no less than the square of its mean (Cauchy-Schwarz),
and metrics of the same outputs agree in what they share. A client that lies about its outputs but not about
arithmetic is not found.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric

_OF_EACH, _RIGHT, _SQUARES = "examples of each class", "right of each class", "sum of squared residuals"
_ROUNDING = 1e-6
"""Relative error of a sum of real numbers, at most."""


@dataclass(frozen=True)
class Over:
    """What sums are over.

    Parameters
    ----------
    count
        Number of examples, as the client claims.
    each
        Whether a metric compares one row per example.
    cells
        Otherwise, how many it compares at most; 0: not known.
    width
        Size of the model's output.
    """

    count: int
    each: bool
    cells: int
    width: int


States = Mapping[str, Tensor]


def check_sums(metrics: "Mapping[str, Metric]", sums: Mapping[str, Tensor], over: Over) -> None:
    """Refuse sums that no outputs on so many examples give.

    Parameters
    ----------
    metrics
        By name; of those of a user's own only what they share with torchmetrics' is known.
    sums
        The states, by ``metric/state``.

    Raises
    ------
    ValueError
        Naming the metric and what is wrong.
    """
    shared: dict[str, tuple[str, Tensor]] = {}
    for name, metric in metrics.items():
        states = {state: sums[f"{name}/{state}"] for state in metric.metric_state}
        for kind, check in _checks():
            if isinstance(metric, kind):
                if wrong := check(metric, states, over):
                    raise ValueError(f"{name}: {wrong}")
                _compare(name, _told(metric, states), shared)
                break


def _compare(name: str, told: States, shared: dict[str, tuple[str, Tensor]]) -> None:
    """Refuse what a metric tells if another one tells it otherwise."""
    for what, value in told.items():
        other, known = shared.setdefault(what, (name, value))
        if known.shape == value.shape and not _close(known, value):
            raise ValueError(f"{name}: {what}: not those of {other}")


def _close(first: Tensor, second: Tensor) -> bool:
    gap = (first.double() - second.double()).abs()
    return bool((gap <= _ROUNDING * (1 + first.double().abs())).all())


def _checks() -> "tuple[tuple[Any, Callable[[Any, States, Over], str]], ...]":
    from torchmetrics import classification as c, regression as r
    from torchmetrics.classification.stat_scores import _AbstractStatScores

    matrices = (c.MulticlassConfusionMatrix, c.BinaryConfusionMatrix)
    curves = (
        c.MulticlassPrecisionRecallCurve,
        c.MultilabelPrecisionRecallCurve,
        c.BinaryPrecisionRecallCurve,
    )
    return (
        (matrices, _matrix),
        (c.MultilabelConfusionMatrix, _matrices),
        (_AbstractStatScores, _scores),
        (curves, _curve),
        ((c.MulticlassExactMatch, c.MultilabelExactMatch), _exact),
        (r.R2Score, _squares),
        ((r.MeanSquaredError, r.MeanAbsoluteError), _distances),
    )


def _wrong_count(metric: Any, counts: Tensor, over: Over, *others: int) -> str:
    """Return what is wrong with numbers of rows, of which a metric may leave out some; empty if nothing."""
    if not over.each and not over.cells:
        return ""
    allowed = {over.count, *others}
    largest = max(allowed) if over.each else max(allowed) * over.cells
    whole = over.each and _said(metric, "ignore_index") is None
    for found in counts.flatten().tolist():
        if found > largest or (whole and found not in allowed):
            return f"{found:g} counted of {over.count} examples"
    return ""


def _said(metric: Any, name: str) -> Any:
    """Return what a metric was made with; None where it has no such setting."""
    return vars(metric).get(name)


def _uneven(counts: Tensor) -> str:
    values = counts.flatten()
    return "" if bool((values == values[0]).all()) else "not the same number of examples for all classes"


def _matrix(metric: Any, states: States, over: Over) -> str:
    return _wrong_count(metric, states["confmat"].sum(), over)


def _matrices(metric: Any, states: States, over: Over) -> str:
    return _wrong_count(metric, states["confmat"].sum(dim=(-1, -2)), over)  # [labels]


def _scores(metric: Any, states: States, over: Over) -> str:
    """Return what is wrong with what is right and wrong of each class, or over all classes."""
    tp, fp, tn, fn = (states[name] for name in ("tp", "fp", "tn", "fn"))
    totals = tp + fp + tn + fn
    if _said(metric, "top_k") not in {None, 1}:
        return ""
    width = 1 if totals.numel() > 1 else over.width
    return _uneven(totals) or _wrong_count(metric, totals, over, over.count * width)


def _curve(metric: Any, states: States, over: Over) -> str:
    """Return what is wrong with the counts at each threshold, shape [thresholds, ..., actual, predicted]."""
    counts = states["confmat"]
    rises = bool((metric.thresholds.diff() >= 0).all())
    if rises and bool((counts[..., 1].diff(dim=0) > 0).any()):
        return "more found at a higher threshold"
    if bool((counts.sum(dim=-1).diff(dim=0) != 0).any()):
        return "not the same number of examples at all thresholds"
    return _wrong_count(metric, counts[0].sum(dim=(-1, -2)), over, over.count * over.width)


def _exact(metric: Any, states: States, over: Over) -> str:
    if bool((states["correct"] > states["total"]).any()):
        return "more are right than there are"
    return _wrong_count(metric, states["total"], over)


def _squares(metric: Any, states: States, over: Over) -> str:
    total, summed = states["total"], states["sum_error"]
    squares, residual = states["sum_squared_error"], states["residual"]
    if bool((squares < 0).any()) or bool((residual < 0).any()):
        return "a sum of squares below 0"
    if bool((summed.square() > total * squares * (1 + _ROUNDING) + _ROUNDING).any()):
        return "the sum of the targets is larger than their squares allow"
    return _wrong_count(metric, total, over)


def _distances(metric: Any, states: States, over: Over) -> str:
    name = next(state for state in states if state != "total")
    if bool((states[name] < 0).any()):
        return f"{name} is below 0"
    return _wrong_count(metric, states["total"], over, over.count * over.width)


def _told(metric: Any, states: States) -> States:
    """Return what several metrics of the same outputs tell alike: how often each class is, and is found."""
    if _said(metric, "ignore_index") is not None or _said(metric, "top_k") not in {None, 1}:
        return {}
    counted = states.get("confmat")
    if counted is not None:
        each = counted[0, :, 1].sum(dim=-1) if counted.dim() == 4 else counted.sum(dim=1)
        return {_OF_EACH: each} | ({_RIGHT: counted.diag()} if counted.dim() == 2 else {})
    if "tp" in states and states["tp"].numel() > 1:
        right = {} if _said(metric, "threshold") is not None else {_RIGHT: states["tp"]}
        return {_OF_EACH: states["tp"] + states["fn"], **right}
    squares = states.get("residual", states.get("sum_squared_error"))
    return {} if squares is None or squares.numel() != 1 else {_SQUARES: squares.reshape(1)}
