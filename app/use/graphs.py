"""Writes a model's graph, for any number of inputs at once, and checks what was written against the model."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from strategies.core.errors import BadInput, LetheError
from strategies.core.extras import not_installed

_TOLERANCE = {"torch": 1e-6, "onnx": 1e-5}
"""Largest difference to the model, relative to the largest output, or absolute if that is below 1."""
_LONGEST = 200
_EXTRA = "onnx"
_OUTPUT = "outputs"
Parts = Sequence[Tensor]


def torch_file(module: nn.Module, parts: Parts, names: Sequence[str], file: Path) -> None:
    """Write the program that `torch.export` makes of a model.

    Raises
    ------
    BadInput
        If it can make none.
    """
    program = _program(module, parts)
    with _refused("torch"):
        torch.export.save(program, file)


def onnx_file(module: nn.Module, parts: Parts, names: Sequence[str], file: Path) -> None:
    """Write a model in the ONNX format, with inputs of these names.

    Raises
    ------
    BadInput
        If it cannot be said in ONNX, or the libraries are missing.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise BadInput(f"--format onnx: {not_installed(missing[0], _EXTRA)}")
    program = _program(module, parts)
    with _refused("onnx"):
        made = torch.onnx.export(
            program, dynamo=True, input_names=list(names), output_names=[_OUTPUT], verbose=False
        )
        if made is None:
            raise BadInput("export: torch.onnx made nothing of the model; --format torch may do")
        for node in made.model.graph:
            node.metadata_props.clear()  # Lines of the sources, and where they lie on this machine
        made.save(str(file))


def check_graph(
    kind: str, file: Path, module: nn.Module, names: Sequence[str], batches: Sequence[Parts]
) -> bool:
    """Compare what was written with the model, on batches of other sizes than it was written with.

    Returns
    -------
    bool
        Whether that could be done: ONNX Runtime, for one, may not be installed.

    Raises
    ------
    BadInput
        If they differ.
    """
    if kind == "onnx" and find_spec("onnxruntime") is None:
        return False
    run = _torch_runner(file) if kind == "torch" else _onnx_runner(file, names)
    for parts in batches:
        with _refused(kind):
            given, wanted = run(parts), module(*parts)
        scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
        if given.shape != wanted.shape or float((given - wanted).abs().max()) > _TOLERANCE[kind] * scale:
            raise BadInput(
                f"export: the exported model answers {len(parts[0])} inputs otherwise than the model does; "
                "--format safetensors exports its weights"
            )
    return True


def _torch_runner(file: Path) -> Any:
    loaded = torch.export.load(file).module()
    return lambda parts: loaded(*parts)


def _onnx_runner(file: Path, names: Sequence[str]) -> Any:
    onnxruntime = import_module("onnxruntime")  # It has no types

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(parts: Parts) -> Tensor:
        feed = {name: part.numpy() for name, part in zip(names, parts, strict=True)}
        return torch.from_numpy(session.run([_OUTPUT], feed)[0])

    return run


def _program(module: nn.Module, parts: Parts) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    with _refused("torch"):
        program = torch.export.export(
            module, tuple(parts), dynamic_shapes={"parts": tuple({0: batch} for _ in parts)}
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # Lines of the sources, and where they lie on this machine
    return program


@contextmanager
def _refused(kind: str) -> Iterator[None]:
    """Turn what an exporter raises into one line, and keep what it prints to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (BadInput, LetheError):
        raise
    except Exception as error:  # noqa: BLE001 (whatever torch's exporters and the user's model raise)
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise BadInput(
            f"export: the model cannot be exported as {kind} ({reason}); --format safetensors exports its "
            "weights"
        ) from None
    finally:
        log.setLevel(level)
