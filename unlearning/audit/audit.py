"""The audit: how far models are from one that never saw the forgotten data.

Every figure of a model is reported with its gap to the retrained model, the only thing it may be compared
with: a high unlearning accuracy or a low membership score says nothing by itself. What cannot be concluded
(an attack that did not take, an attacker that guesses, clients that did not answer) is said in the notes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.wire import Layout
from strategies.models.ensemble import member_layout, members_of
from strategies.server.cohort import Cohort
from unlearning.audit import metrics
from unlearning.audit.caveats import (
    caveats,
    floor_caveats,
    mask_caveats,
    privacy_caveats,
    staged_caveats,
)
from unlearning.audit.measurement import Measurement, measure, measure_own_models
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings

ORIGINAL = "before"
"""Name of the model before forgetting."""
DISPARITY_OF = ("unlearning_accuracy", "mia_efficacy", "retain_accuracy", "test_accuracy")
"""The figures whose mean |gap| is the disparity; MIA-efficacy is left out where its attacker only guesses."""
GAP_OF = (*DISPARITY_OF, "attack_success_rate", "worst_client_accuracy", "mean_client_accuracy")
"""The figures whose gap is reported."""


@dataclass(frozen=True)
class Comparison:
    """One model against the retrained one.

    Attributes
    ----------
    gaps : mapping of str to float or None
        Model minus retrained, in points, for each of `GAP_OF`; None where one of the two was not measured.
    disparity : float or None
        Mean |gap| over UA, MIA-efficacy, RA and TA.
    parameter_distance : float or None
        ‖θ − θr‖ / ‖θo − θr‖.
    last_layer_angle : float or None
        Between the weights of the two last layers, in degrees.
    disparity_without_mia : float or None
        Mean |gap| over UA, RA and TA: what counts where the membership attacker only guesses.
    """

    gaps: Mapping[str, float | None]
    disparity: float | None
    parameter_distance: float | None
    last_layer_angle: float | None
    disparity_without_mia: float | None = None


@dataclass(frozen=True)
class EarlierRequest:
    """All models, measured on an earlier request: whether it stayed forgotten.

    Attributes
    ----------
    request : ForgetRequest
        The earlier request.
    measurements : mapping of str to Measurement
        By model; what the other requests named counts neither as forgotten nor as retained.
    gaps : mapping of str to mapping of str to float or None
        By model, as in `Comparison`.
    """

    request: ForgetRequest
    measurements: Mapping[str, Measurement]
    gaps: Mapping[str, Mapping[str, float | None]]

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as a mapping that `json` can write."""
        return {
            "request": self.request.to_json(),
            "models": {name: measured.to_json() for name, measured in self.measurements.items()},
            "gaps": {name: dict(gaps) for name, gaps in self.gaps.items()},
        }


@dataclass(frozen=True)
class AuditReport:
    """All models of one request, measured alike.

    Attributes
    ----------
    request : ForgetRequest
        What was to be forgotten.
    reference : str
        Name of the retrained model.
    measurements : mapping of str to Measurement
        By model.
    comparisons : mapping of str to Comparison
        By model; the reference, compared with itself, has gaps of 0.
    seconds : mapping of str to float or None
        Wall-clock that made each model; None where it is unknown.
    notes : tuple of str
        What cannot be concluded, and why.
    earlier : tuple of EarlierRequest
        What was forgotten before, in order.
    """

    request: ForgetRequest
    reference: str
    measurements: Mapping[str, Measurement]
    comparisons: Mapping[str, Comparison]
    seconds: Mapping[str, float | None]
    notes: tuple[str, ...]
    earlier: tuple[EarlierRequest, ...] = ()

    def seconds_ratio(self, name: str) -> float | None:
        """Return a model's wall-clock over the retraining's (run-time efficiency); None if unknown."""
        seconds, retraining = self.seconds[name], self.seconds[self.reference]
        return seconds / retraining if seconds is not None and retraining else None

    def to_json(self) -> dict[str, Any]:
        """Return the report as a mapping that `json` can write."""
        return {
            "request": self.request.to_json(),
            "reference": self.reference,
            "models": {n: {**m.to_json(), "seconds": self.seconds[n]} for n, m in self.measurements.items()},
            "comparisons": {
                n: {**asdict(c), "seconds_ratio": self.seconds_ratio(n)} for n, c in self.comparisons.items()
            },
            "notes": list(self.notes),
            "earlier": [each.to_json() for each in self.earlier],
        }


@dataclass(frozen=True, eq=False)
class AuditedModel:
    """A model to be audited.

    `flat` are its parameters, shape [run.layout.size]; `seconds` the wall-clock that made it, None if
    unknown. `lineage` names the models to measure where clients keep models of their own.
    """

    flat: Tensor
    seconds: float | None = None
    lineage: str = ""


def audit(
    run: TrainedRun,
    request: ForgetRequest,
    models: Mapping[str, AuditedModel],
    cohort: Cohort,
    settings: AuditSettings,
    reference: str = "retrain",
) -> AuditReport:
    """Measure several models and compare each with the retrained one.

    Parameters
    ----------
    run, request
        The finished run, and what was to be forgotten. If something was forgotten earlier, the original is
        the model without that, and all models are measured on those requests as well.
    models
        By name: the original as `ORIGINAL`, the retrained one, and any number of others. Retrainings with
        other seeds belong here too: their distance to `reference` is the scale for that of the others.
    cohort
        All clients, the forgotten ones included; each is visited once per model.
    settings
        The section `audit`.
    reference
        Name of the retrained model.

    Raises
    ------
    BadInput
        If the original or the retrained model is not among `models`.
    LetheError
        If a model is not finite.
    """
    for name in (ORIGINAL, reference):
        if name not in models:
            raise BadInput(f"no model '{name}' to audit; the models are {', '.join(models)}")
    flats = {name: model.flat for name, model in models.items()}
    retrained = flats[reference]

    def measured(of: TrainedRun, on: ForgetRequest) -> dict[str, Measurement]:
        if run.client_models:
            against = models[reference].lineage
            return {
                name: measure_own_models(
                    of, each.lineage, on, cohort, settings, None if name == reference else against, name
                )
                for name, each in models.items()
            }
        return {
            name: measure(of, flat, on, cohort, settings, None if name == reference else retrained, name)
            for name, flat in flats.items()
        }

    measurements = measured(run, request)
    earlier = [
        _earlier(each, measured(without(run, each, request), each), reference) for each in run.forgotten
    ]
    comparisons = {
        name: compare(
            each,
            measurements[reference],
            flats[name],
            retrained,
            flats[ORIGINAL],
            run.layout,
            run.plan.isolation,
        )
        for name, each in measurements.items()
    }
    if run.client_models:
        comparisons = {
            name: replace(each, parameter_distance=None, last_layer_angle=None)
            for name, each in comparisons.items()
        }
    seconds = {name: model.seconds for name, model in models.items()}
    notes = [
        *caveats(measurements, ORIGINAL),
        *mask_caveats(run.mask_origin),
        *privacy_caveats(run, request),
        *floor_caveats(run, any(name.startswith(f"{reference}-") for name in models)),
        *staged_caveats(run, measurements),
        *_notes_on(earlier),
    ]
    return AuditReport(
        request, reference, measurements, comparisons, seconds, tuple(notes), earlier=tuple(earlier)
    )


def without(run: TrainedRun, earlier: ForgetRequest, request: ForgetRequest) -> TrainedRun:
    """Return the run as if `request` had been served before `earlier`, on which the models are measured."""
    others = tuple(each for each in run.forgotten if each is not earlier)
    return replace(run, forgotten=(*others, request))


def _earlier(
    request: ForgetRequest, measurements: Mapping[str, Measurement], reference: str
) -> EarlierRequest:
    gaps = {name: _gaps(each, measurements[reference]) for name, each in measurements.items()}
    return EarlierRequest(request, measurements, gaps)


def _notes_on(earlier: Sequence[EarlierRequest]) -> Iterator[str]:
    """Yield a note for each model and earlier request about which no client answered."""
    for each in earlier:
        for name, measured in each.measurements.items():
            if measured.num_forget == 0:
                yield f"{name}: no client answered for {each.request.name}, which was forgotten before"


def compare(
    measured: Measurement,
    reference: Measurement,
    flat: Tensor,
    retrained: Tensor,
    original: Tensor,
    layout: Layout,
    members: int = 1,
) -> Comparison:
    """Compare one model with the retrained one.

    `measured` and `reference` are the measurements of the two; `flat`, `retrained` and `original` the
    parameters of the two and of the model before forgetting, shape [layout.size]. Of an ensemble of several
    `members`, the last layers are those of all.
    """
    gaps = _gaps(measured, reference)
    return Comparison(
        gaps=gaps,
        disparity=metrics.disparity([gaps[name] for name in DISPARITY_OF]),
        disparity_without_mia=metrics.disparity(
            [gaps[name] for name in DISPARITY_OF if name != "mia_efficacy"]
        ),
        parameter_distance=metrics.parameter_distance(flat, retrained, original),
        last_layer_angle=metrics.angle(
            last_layers(flat, layout, members), last_layers(retrained, layout, members)
        ),
    )


def _gaps(measured: Measurement, reference: Measurement) -> dict[str, float | None]:
    return {name: metrics.gap(getattr(measured, name), getattr(reference, name)) for name in GAP_OF}


def last_layers(flat: Tensor, layout: Layout, members: int) -> Tensor:
    """Return weight and bias of the last layer of each member of an ensemble; see `last_layer`."""
    alone = member_layout(layout, members)
    return torch.cat([last_layer(each, alone) for each in members_of(flat, members)])


def last_layer(flat: Tensor, layout: Layout) -> Tensor:
    """Return weight and bias of the last layer: the entries of the module that holds the layout's last one.

    Examples
    --------
    >>> import torch
    >>> layout = Layout(("body.weight", "head.weight", "head.bias"), ((2, 2), (1, 2), (1,)))
    >>> last_layer(torch.arange(7.0), layout)
    tensor([4., 5., 6.])
    """
    modules = [name.rpartition(".")[0] for name in layout.names]
    size = sum(s for s, module in zip(layout.sizes, modules, strict=True) if module == modules[-1])
    return flat[layout.size - size :]
