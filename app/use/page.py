"""The page that goes with an export: what it is, and ten lines that load it."""

from collections.abc import Mapping
from typing import Any

from app.use.subject import Subject

_TORCH = """import json, torch

with open("model.json", encoding="utf-8") as file:
    about = json.load(file)
model = torch.export.load("model.pt2").module()
inputs = [torch.rand(4, *p["shape"]).to(getattr(torch, p["dtype"])) for p in about["inputs"].values()]
outputs = model(*inputs)  # put your own inputs here, any number of them
print(outputs.shape, about["classes"])
"""
_ONNX = """import json, numpy, onnxruntime

with open("model.json", encoding="utf-8") as file:
    about = json.load(file)
model = onnxruntime.InferenceSession("model.onnx")
inputs = {n: numpy.random.rand(4, *p["shape"]).astype(p["dtype"]) for n, p in about["inputs"].items()}
outputs = model.run(None, inputs)[0]  # put your own inputs here, any number of them
print(outputs.shape, about["classes"])
"""
_WEIGHTS = """import json
from safetensors.torch import load_file

with open("model.json", encoding="utf-8") as file:
    about = json.load(file)
weights = load_file("model.safetensors")
# model = TheClassOfTheModel(); model.load_state_dict(weights); model.eval()
print(len(weights), "tensors", about["classes"])
"""
SNIPPETS: Mapping[str, str] = {"torch": _TORCH, "onnx": _ONNX, "safetensors": _WEIGHTS}
_BEGIN, _END = "--- python ---", "--- end ---"
_NEEDS = {
    "torch": "torch",
    "onnx": "numpy and onnxruntime",
    "safetensors": "safetensors, torch and the model's class",
}


def readme(subject: Subject, kind: str, document: Mapping[str, Any]) -> str:
    """Return the text of an export's page."""
    parts = "\n".join(
        f"  {name}: shape [n, {', '.join(map(str, part['shape']))}], {part['dtype']}"
        for name, part in document["inputs"].items()
    )
    lines = [
        f"{document['model']}: {_origin(subject)}",
        "",
        f"It loads with {_NEEDS[kind]}; Lethe is not needed. In this folder:",
        "",
        _BEGIN,
        SNIPPETS[kind].rstrip(),
        _END,
        "",
        f"Inputs, any number n of them at once:\n{parts}"
        if parts
        else "Inputs: as the model's class takes them",
        *([f"Images: {document['pixels']}"] if document["pixels"] else []),
        *([_columns(document["columns"])] if document["columns"] else []),
        *([f"Scale of the columns: {document['scale']['where']} (model.json)"] if document["scale"] else []),
        f"Outputs: {document['outputs']['meaning']}",
        *([f"Classes: {', '.join(document['classes'])}"] if document["classes"] else []),
        *(f"Note: {note}" for note in document["notes"]),
    ]
    return "\n".join(lines) + "\n"


def _columns(columns: Mapping[str, Any]) -> str:
    return f"Columns, encoded as model.json says: {', '.join(columns['names'])}"


def _origin(subject: Subject) -> str:
    """Return which model it is, in words."""
    owner = f", the model of client {subject.client}" if subject.client else ""
    run = f"run {subject.folder.name} ({subject.folder.run_id}){owner}"
    if subject.forgetting is None:
        return f"the model of {run} as it was trained"
    certified = "; certificate.json certifies it" if subject.certificate else ""
    return f"the model of {run} after the forgetting {subject.forgetting.path.name}{certified}"
