"""One forgetting on the page: its table, notes and pictures, in words and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.report import wording
from app.report.attack_tables import attack_tables
from app.report.figures import comparison
from app.report.png import png_uri
from app.report.reading import RETRAIN, Forgetting, Link, RunRecord
from app.report.svg import Picture
from app.report.tables import NumberTable, Row, shortened
from app.report.triggered import TriggeredImage
from app.report.wording import COLUMNS, MISSING, capital
from strategies.core.wire import client_sort_key

MOST_IMAGES = 12
"""Triggered images that are shown."""
_MOST_CLIENTS = 200

_MODELS = ("before", "after", RETRAIN)
_LABELS = {RETRAIN: "retrained"}
_EXTRAS = {
    "mia_efficacy_std": "spread of MIA over the membership attacker's draws, points",
    "mia_attacker_accuracy": "membership attacker's own accuracy, % (50: it only guesses)",
    "mia_attacker_accuracy_std": "its spread over the draws, points",
    "mia_guessing_bound": "accuracy that guessing would reach by luck, %",
    "mia_meaningful": "membership attack meaningful",
    "mia_examples_per_side": "examples per side of the membership attack",
    "mia_draws": "draws of the membership attack",
    "worst_client_accuracy": "accuracy of the remaining client served worst, %",
    "mean_client_accuracy": "mean accuracy over the remaining clients, %",
    "output_distance_forget": "output distance to retrained on forgotten data, nats",
    "output_distance_retain": "output distance to retrained on retained data, nats",
    "output_distance_test": "output distance to retrained on test data, nats",
    "parameter_distance": "parameter distance to retrained (0: equal to it, 1: as far as before)",
    "last_layer_angle": "angle of the last layer to that of retrained, degrees",
    "num_forget": "forgotten examples measured",
    "num_retain": "retained examples measured",
    "num_test": "test examples measured",
    "num_triggered": "triggered examples measured",
    "measuring_seconds": "time of the measurement, s",
}
_NOT_EXTRA = {
    *(column.key for column in COLUMNS),
    "disparity",
    "disparity_without_mia",
    "seconds_ratio",
}
"""Figures that stand elsewhere on the page."""


@dataclass(frozen=True)
class ImageView:
    """A triggered image: PNG as a data URI, text alternative, and the name of its true class."""

    source: str
    alt: str
    true_class: str


@dataclass(frozen=True)
class VerdictRow:
    """A model's predictions for the triggered images: style and text of each."""

    label: str
    verdicts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ForgettingView:
    """One forgetting on the page; empty parts are left out."""

    title: str
    guarantee: str
    headline: tuple[tuple[str, str], ...]
    verdict: str
    attacks: tuple[str, ...]
    attack_tables: tuple[NumberTable, ...]
    table: NumberTable | None
    extras: NumberTable | None
    clients: NumberTable | None
    links: tuple[Link, ...]
    picture: Picture | None
    notes: tuple[str, ...]
    images: tuple[ImageView, ...]
    image_rows: tuple[VerdictRow, ...]
    image_caption: str


def view(forgetting: Forgetting, record: RunRecord, position: int) -> ForgettingView:
    """Return the view of a forgetting, the `position`-th on the page."""
    audit = forgetting.audit
    images = forgetting.triggered[:MOST_IMAGES]
    return ForgettingView(
        title=capital(
            f"{wording.subject(forgetting.request)}, forgotten by {forgetting.method}{_after(forgetting)}"
        ),
        guarantee=forgetting.guarantee and forgetting.guarantee.rstrip(".") + ".",
        headline=() if audit is None else tuple(_headline(audit)),
        verdict="" if audit is None else capital(wording.verdict(audit)),
        attacks=() if audit is None else tuple(f"{capital(w)}." for w in wording.attacks(audit)),
        attack_tables=() if audit is None else attack_tables(audit),
        table=None if audit is None else _table(audit, forgetting.method),
        extras=None if audit is None else _extras(audit),
        clients=None if audit is None else _by_client(audit),
        links=forgetting.links,
        picture=None if audit is None else comparison(audit, f"comparison-{position}"),
        notes=tuple(_notes(forgetting, record)),
        images=tuple(_image_views(images, class_names(record))),
        image_rows=tuple(_verdict_rows(images, record)),
        image_caption=_image_caption(forgetting.triggered, record),
    )


def class_names(record: RunRecord) -> list[str]:
    """Return the names of the classes; empty if they have none."""
    return [str(name) for name in (record.summary.get("data") or {}).get("class-names") or ()]


def sentence(forgetting: Forgetting) -> str:
    """Return the outcome of a forgetting in a sentence, for a reader of nothing else."""
    head = capital(f"{wording.subject(forgetting.request)} was forgotten by the method '{forgetting.method}'")
    head += _after(forgetting)
    if forgetting.method == RETRAIN:
        return f"{head}, which trains anew without the data: the reference for all other methods."
    if forgetting.audit is None:
        return f"{head}; not audited, so nothing is known of how complete that is."
    disparity = wording.headline(forgetting.audit)
    if disparity is None:
        return f"{head}; the audit could not measure its distance to a model retrained without the data."
    if words := wording.verdict(forgetting.audit):
        return f"{head}. {capital(words)}."
    distance = f"on average it is {disparity:.1f} points from a model retrained without the data"
    return f"{head}; {distance}{_attack_left(forgetting.audit)}."


def _after(forgetting: Forgetting) -> str:
    return f" after {forgetting.after}" if forgetting.after else ""


def _attack_left(audit: Mapping[str, Any]) -> str:
    after, retrain = ((audit.get(model) or {}).get("attack_success_rate") for model in ("after", RETRAIN))
    if after is None or retrain is None:
        return ""
    return f", and the backdoor works on {after:.1f} % of the images (retrained: {retrain:.1f} %)"


def _headline(audit: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if (disparity := wording.headline(audit)) is not None:
        yield f"{disparity:.1f} points", _beside(audit) or "disparity: mean distance to retrained"
    rates = [(audit.get(model) or {}).get("attack_success_rate") for model in _MODELS]
    if None not in rates:
        before, after, retrain = rates
        yield f"{before:.0f} % → {after:.0f} %", f"attack success, retrained: {retrain:.0f} %"
    after, retrain = ((audit.get(model) or {}).get("seconds") for model in ("after", RETRAIN))
    if after and retrain:
        yield f"{wording.seconds(after)} s", f"to forget; retraining took {wording.seconds(retrain)} s"


def _beside(audit: Mapping[str, Any]) -> str:
    """Return what to compare the disparity with: doing nothing, and a second retraining."""
    verdict = audit.get("verdict") or {}
    known = [("doing nothing", verdict.get("before")), ("a second retraining", verdict.get("floor"))]
    words = [f"{name}: {value:.1f}" for name, value in known if value is not None]
    return f"disparity ({', '.join(words)})" if words else ""


def _table(audit: Mapping[str, Any], method: str) -> NumberTable:
    columns = tuple(f"{column.short}, %" if column.unit == "%" else column.short for column in COLUMNS)
    caption = "The model before and after forgetting beside the one retrained without the data."
    return NumberTable(caption, "model", columns, _rows(audit, method))


def _by_client(audit: Mapping[str, Any]) -> NumberTable | None:
    """Return the accuracy on each client's own training data; None where it was not measured."""
    accuracies = {model: (audit.get(model) or {}).get("client_accuracy") or {} for model in _MODELS}
    clients = sorted({i for found in accuracies.values() for i in found}, key=client_sort_key)
    if not clients:
        return None
    rows = []
    for client in clients:
        before, after, retrain = (accuracies[model].get(client) for model in _MODELS)
        lost = None if after is None or retrain is None else after - retrain
        rows.append(Row(client, (*map(wording.number, (before, after, retrain)), wording.gap(lost))))
    shown, more = shortened(rows, _MOST_CLIENTS, "clients")
    columns = ("before, %", "after, %", "retrained, %", "gap")
    return NumberTable(f"Accuracy on each remaining client's own data{more}.", "client", columns, shown)


def _rows(audit: Mapping[str, Any], method: str) -> tuple[Row, ...]:
    models = [model for model in _MODELS if not (method == RETRAIN and model == "after")]
    rows = [
        Row(
            _LABELS.get(model, model),
            tuple(wording.cell(c, audit.get(model) or {}) for c in COLUMNS),
            model,
        )
        for model in models
    ]
    return tuple(rows) if method == RETRAIN else (*rows, Row("gap to retrained", tuple(_gaps(audit)), "gap"))


def _gaps(audit: Mapping[str, Any]) -> Iterator[str]:
    gaps = audit.get("gaps") or {}
    for column in COLUMNS:
        if column.unit == "%":
            yield wording.gap(gaps.get(column.key))
            continue
        after, retrain = ((audit.get(model) or {}).get(column.key) for model in ("after", RETRAIN))
        yield f"{after / retrain:.2f} ×" if after is not None and retrain else MISSING


def _extras(audit: Mapping[str, Any]) -> NumberTable | None:
    rows = tuple(_extra_rows(audit))
    columns = ("before", "after", "retrained")
    return NumberTable("Further measures of the audit.", "measure", columns, rows) if rows else None


def _extra_rows(audit: Mapping[str, Any]) -> Iterator[Row]:
    scalars = {model: dict(_scalars(audit.get(model) or {})) for model in _MODELS}
    scalars["after"] |= dict(_scalars(audit.get("comparison") or {}))
    found = {key for values in scalars.values() for key in values}
    known = [key for key in _EXTRAS if key in found]
    for key in (*known, *sorted(found - set(known))):
        cells = tuple(_extra_cell(key, scalars[model].get(key)) for model in _MODELS)
        yield Row(_EXTRAS.get(key, key.replace("_", " ")), cells)


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, bool | float]]:
    for key, value in values.items():
        if key not in _NOT_EXTRA and isinstance(value, bool | int | float):
            yield key, value


def _extra_cell(key: str, value: bool | float | None) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return wording.number(value, 1 if "accuracy" in key or "bound" in key else 3)


def _notes(forgetting: Forgetting, record: RunRecord) -> Iterator[str]:
    audit = forgetting.audit or {}
    warnings = [f"Warning: {warning}" for warning in forgetting.result.get("warnings", ())]
    notes = [*warnings, *map(str, (*forgetting.result.get("notes", ()), *audit.get("notes", ())))]
    yield from (capital(note).rstrip(".") + "." for note in dict.fromkeys(notes))
    if found := wording.scale(audit):
        yield f"{capital(found)}."
    if audit:
        seed = record.settings.get("run.seed", 0)
        yield f"One run with one seed ({seed}): differences of a point or so may be chance."


def _image_views(images: Sequence[TriggeredImage], names: Sequence[str]) -> Iterator[ImageView]:
    if not images:
        return
    everything = np.stack([image.pixels for image in images])
    low, high = float(everything.min()), float(everything.max())
    for position, image in enumerate(images, start=1):
        pixels = np.clip((image.pixels - low) / ((high - low) or 1.0), 0.0, 1.0)
        true_class = _class_name(image.true_label, names)
        yield ImageView(_png(pixels), f"triggered test image {position}, true class {true_class}", true_class)


def _png(pixels: Any) -> str:
    plane = pixels[0] if pixels.ndim == 3 and len(pixels) == 1 else pixels  # [H, W] or [3, H, W]
    array = plane if plane.ndim == 2 else np.moveaxis(plane, 0, -1)  # [H, W] or [H, W, 3]
    return png_uri(np.ascontiguousarray(np.round(255 * array).astype(np.uint8)))


def _verdict_rows(images: Sequence[TriggeredImage], record: RunRecord) -> Iterator[VerdictRow]:
    names, target = class_names(record), _target(record)
    for model in images[0].predictions if images else ():
        verdicts = tuple(_verdict(image, model, target, names) for image in images)
        yield VerdictRow(_LABELS.get(model, model), verdicts)


def _verdict(image: TriggeredImage, model: str, target: int | None, names: Sequence[str]) -> tuple[str, str]:
    predicted = image.predictions[model]
    name = _class_name(predicted, names)
    if predicted == image.true_label:
        return "right", f"{name} ✓"
    return ("hit", f"{name} ⚑") if predicted == target else ("", name)


def _image_caption(images: Sequence[TriggeredImage], record: RunRecord) -> str:
    target = _target(record)
    if not images or target is None:
        return "✓ the true class."
    hits = {m: sum(i.predictions[m] == target != i.true_label for i in images) for m in images[0].predictions}
    words = wording.listed(f"{hit} {_LABELS.get(model, model)}" for model, hit in hits.items())
    name = _class_name(target, class_names(record))
    return (
        f"✓ the true class; ⚑ the attack succeeded: the image is taken for the target class {name}. "
        f"Of {wording.count(len(images), 'image')} the attack succeeds on {words}."
    )


def _target(record: RunRecord) -> int | None:
    if record.settings.get("attack.kind", "none") == "none":
        return None
    return int(record.settings["attack.target"])


def _class_name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
