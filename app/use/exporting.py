"""Exports: a folder with a model and what is needed to load it in a program that knows nothing of Lethe.

- ``torch``: ``model.pt2``, the program that `torch.export` makes; it needs torch, not the model's class.
- ``onnx``: ``model.onnx``, for ONNX Runtime and the like; it needs neither torch nor the class.
- ``safetensors``: ``model.safetensors``, the weights by name, for whoever has the model's class.

The first two hold the whole graph, for any number of inputs at once, and bring a table's columns to the run's
scale themselves. ``model.json`` says what goes in and what comes out, which run and which forgetting made the
model, and the hash of the certificate, which lies beside it. The example inputs of a graph are made up:
nobody's data are in an export.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

import torch
from torch import Tensor, nn

from app.data.forms import ONE, Form, Forms, forms_of
from app.forgettings.folder import sha256_of
from app.use.graphs import check_graph, onnx_file, torch_file
from app.use.page import readme
from app.use.subject import Subject
from app.version import version
from strategies.client.evaluation import eval_mode
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs
from strategies.runs.files import not_written, write_json, write_text
from strategies.runs.tensor_file import write_sealed
from strategies.task import Task

FILES: Mapping[str, str] = {"torch": "model.pt2", "onnx": "model.onnx", "safetensors": "model.safetensors"}
"""The model's file by the name of the format."""
DESCRIPTION, README, CERTIFICATE = "model.json", "README.txt", "certificate.json"
VERSION = 1
"""Of the description."""
INPUT, OUTPUT = "inputs", "outputs"


@dataclass(frozen=True)
class Export:
    """An export that was written."""

    path: Path
    files: tuple[str, ...]
    description: Mapping[str, Any]


def export(subject: Subject, kind: str, place: Path, example: Inputs | None = None) -> Export:
    """Write an export into a new folder.

    Parameters
    ----------
    place
        The folder; it may not exist, or must be empty.
    example
        Inputs of which shape and type are taken where the run did not record them; their values are not used.

    Raises
    ------
    BadInput
        If the folder holds something, or the model cannot be exported so; nothing is left behind.
    LetheError
        If a library is missing, or the disk does not take the files.
    """
    if kind not in FILES:
        raise BadInput(f"--format: given {kind!r}, allowed {', '.join(FILES)}")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise BadInput(f"--out: given {place}, which is there already; give another, or remove it")
    forms = subject.session.server_data.forms or ({} if example is None else forms_of(example))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as made:
            described = _write(subject, kind, forms, Path(made, "made"))
            if place.is_dir():
                place.rmdir()
            Path(made, "made").rename(place)
    except OSError as error:
        raise not_written(place, error) from None
    return Export(place, tuple(sorted(path.name for path in place.iterdir())), described)


def _write(subject: Subject, kind: str, forms: Forms, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    file = folder / FILES[kind]
    if kind == "safetensors":
        outputs, described = _weights(subject, forms, file)
    else:
        outputs, described = _graph(subject, kind, forms, file)
    document = {**_description(subject, kind, forms), **described, "outputs": outputs}
    document["sha256"] = {file.name: sha256_of(file)}
    if subject.certificate is not None:
        shutil.copyfile(subject.certificate, folder / CERTIFICATE)
    write_json(folder / DESCRIPTION, document)
    write_text(folder / README, readme(subject, kind, document))
    return document


def _graph(subject: Subject, kind: str, forms: Forms, file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not forms:
        raise BadInput(
            "export: the run did not record what its inputs are like, as its server had no data; give --data "
            "FILE, of which shape and type are taken"
        )
    module = Whole(subject.model, subject.session.task, tuple(forms), subject.session.scale)
    parts = tuple(form.made_up(3) for form in forms.values())
    write: Callable[..., None] = torch_file if kind == "torch" else onnx_file
    with eval_mode(module):
        write(module, parts, [name or INPUT for name in forms], file)
        others = [tuple(form.made_up(count) for form in forms.values()) for count in (1, 5)]
        checked = check_graph(kind, file, module, [name or INPUT for name in forms], others)
        made = module(*parts)
    return _outputs(subject, made), {"scale": _scale(subject, inside=True), "compared": checked}


def _weights(subject: Subject, forms: Forms, file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write every entry of the model's state, once for each of its names."""
    state = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    try:
        write_sealed(
            file,
            state,
            {"format": "pt", "run": subject.session.folder.run_id if subject.session.folder else ""},
        )
    except KeyError as error:
        raise BadInput(f"export: the model holds {error}, which a safetensors file cannot") from None
    outputs: dict[str, Any] = {"meaning": subject.session.task.meaning}
    if forms:
        module = Whole(subject.model, subject.session.task, tuple(forms), ())
        with eval_mode(module):
            outputs = _outputs(subject, module(*(form.made_up(2) for form in forms.values())))
    network = " ".join(repr(subject.model).split())
    return outputs, {"scale": _scale(subject, inside=False), "network": network}


def _outputs(subject: Subject, made: Tensor) -> dict[str, Any]:
    return {**Form(tuple(made.shape[1:])).to_json(), "meaning": subject.session.task.meaning}


def _scale(subject: Subject, *, inside: bool) -> dict[str, Any] | None:
    numbers = subject.session.scale
    if not numbers:
        return None
    half = len(numbers) // 2
    says = (
        "inside the model: give columns as they are" if inside else "(column − mean) / deviation, in float64"
    )
    return {"means": numbers[:half], "deviations": numbers[half:], "where": says}


def _description(subject: Subject, kind: str, forms: Forms) -> dict[str, Any]:
    columns, stored = subject.session.server_data.columns, subject.forgetting
    certificate = subject.certificate
    return {
        "format": "lethe-export",
        "version": VERSION,
        "model": FILES[kind],
        "run": {"name": subject.folder.name, "id": subject.folder.run_id},
        "forgetting": None
        if stored is None
        else {
            "name": stored.path.name,
            "method": stored.method,
            "request": stored.request.to_json(),
            "certificate": None
            if certificate is None
            else {"path": f"forget/{stored.path.name}/{certificate.name}", "sha256": sha256_of(certificate)},
        },
        "client": subject.client or None,
        "model-sha256": subject.sha256,
        "task": subject.session.task.name,
        "classes": list(subject.class_names),
        "inputs": {name or INPUT: form.to_json() for name, form in forms.items()},
        "pixels": _pixels(subject, forms),
        "columns": None if columns is None else {**columns.to_json(), "names": list(columns.names)},
        "notes": list(subject.notes),
        "software": {"lethe": version(), "torch": str(torch.__version__)},
    }


def _pixels(subject: Subject, forms: Forms) -> str | None:
    """Return how images become inputs, in words; None where inputs are no images that Lethe has read."""
    if subject.session.work.has_data or ONE not in forms or len(forms[ONE].shape) != 3:
        return None
    channels, height, width = forms[ONE].shape
    return f"{'grey' if channels == 1 else 'RGB'}, {width}×{height}, divided by 255, channels first"


@final
class Whole(nn.Module):
    """A model with the scale before it, called as its task calls it: one argument per part of an input."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, model: nn.Module, task: Task, names: tuple[str, ...], scale: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.model, self._task, self._names = model, task, names
        self._scaled = bool(scale)
        both = torch.tensor(scale, dtype=torch.float64).view(2, -1)
        self.register_buffer("mean", both[0].clone(), persistent=self._scaled)
        self.register_buffer("deviation", both[1].clone(), persistent=self._scaled)

    def forward(self, *parts: Tensor) -> Tensor:
        """Return the outputs of inputs whose columns are as they were measured."""
        if self._names != (ONE,):
            return self._task.forward(self.model, dict(zip(self._names, parts, strict=True)))
        inputs = ((parts[0].double() - self.mean) / self.deviation).float() if self._scaled else parts[0]
        return self._task.forward(self.model, inputs)
