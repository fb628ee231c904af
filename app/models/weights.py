"""Initial weights from a file or from an earlier run; nothing that a file holds is ever executed."""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the error class alone

import numpy as np
import torch
from torch import Tensor, nn

from strategies.core.errors import BadInput, RunCorrupt
from strategies.core.wire import State
from strategies.runs.files import read_bytes
from strategies.runs.folder import MODEL, STAYING
from strategies.runs.tensor_file import decode, read_sealed

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NESTED = ("state_dict", "model")
"""Under which of these names a checkpoint may hold the weights beside other things."""
_SHOWN = 3


def weights_place(given: str, home: Path) -> str:
    """Return the absolute path that ``model.weights`` means: a file, or the folder of a run or forgetting.

    Parameters
    ----------
    given
        A file, a run's name in `home`, or the folder of a run or of a forgetting in it (``RUN/forget/NAME``);
        empty: no weights.

    Raises
    ------
    BadInput
        If there is neither.
    """
    if not given:
        return ""
    path = Path(given).expanduser().absolute()
    if path.suffix in _READERS:
        return str(path)
    for folder in (home / given, path):
        if (folder / MODEL).exists():
            return str(folder.absolute())
    raise BadInput(
        f"model.weights: given '{given}', allowed a file ({', '.join(_READERS)}), or a finished run's name "
        "or folder, or a forgetting's folder"
    )


def weights_file(place: str) -> Path:
    """Return the file of a place that `weights_place` gave."""
    path = Path(place)
    return path / MODEL if path.is_dir() else path


def load_weights(model: nn.Module, place: str, subject: str) -> None:
    """Copy weights into a model, in place; statistics of batch norms that were replaced are left out.

    Parameters
    ----------
    place
        As `weights_place` gives it.
    subject
        The key that names the model, and its name, for people.

    Raises
    ------
    BadInput
        If the file cannot be read, or is of another architecture.
    """
    found = read_weights(place)
    state = {key: t for key, t in model.state_dict().items() if isinstance(t, Tensor)}
    given = {key: t for key, t in found.items() if key in state or not _is_statistic(model, key)}
    filled = {state[key].data_ptr() for key in given if key in state}  # A tied weight may have one name only
    missing = [k for k, t in state.items() if k not in given and _is_needed(t) and t.data_ptr() not in filled]
    unexpected = [key for key in given if key not in state]
    shapes = [
        f"{key} {tuple(t.shape)} for {tuple(state[key].shape)}"
        for key, t in given.items()
        if key in state and t.shape != state[key].shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "wrong shapes": shapes}
    if any(wrong.values()):
        said = "; ".join(f"{what} {_some(names)}" for what, names in wrong.items() if names)
        raise BadInput(f"model.weights: {place} is of another architecture than {subject}: {said}")
    with torch.no_grad():
        for key, tensor in given.items():
            state[key].copy_(tensor)


def read_weights(place: str) -> State:
    """Return the tensors of a weights file or of a run's final model, by name.

    Raises
    ------
    BadInput
        If they cannot be read.
    """
    path = Path(place)
    try:
        if path.is_dir():
            return _of_run(path)
        if not path.is_file():
            raise BadInput(f"model.weights: there is no file {path}")
        return _READERS[path.suffix](path)
    except RunCorrupt as error:
        raise BadInput(f"model.weights: {error}") from None
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:100]
        raise BadInput(f"model.weights: {path} cannot be read as named tensors alone: {reason}") from None


def _of_run(folder: Path) -> State:
    """Return a run's or forgetting's final model; what does not travel lies in the run's folder."""
    run = folder.parent.parent if folder.parent.name == "forget" else folder
    staying = read_sealed(run / STAYING).tensors if (run / STAYING).exists() else {}
    return {**staying, **read_sealed(folder / MODEL).tensors}


def _safetensors(path: Path) -> State:
    return decode(read_bytes(path)).tensors


def _npz(path: Path) -> State:
    with np.load(path, allow_pickle=False) as arrays:
        if isinstance(arrays, np.ndarray):
            raise ValueError("it holds one array without a name")
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _torch(path: Path) -> State:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - runs no code
    except UnpicklingError:
        raise ValueError("it holds objects that would run code, or is no file of torch.save") from None
    except Exception as error:  # noqa: BLE001 - of torch's own classes
        raise ValueError(str(error)) from None
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError("it holds no table of tensors")
    return dict(found)


_READERS: Mapping[str, Callable[[Path], State]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
}


def _is_statistic(model: nn.Module, key: str) -> bool:
    """Whether an entry is a statistic of a layer that the model has under another class."""
    layer, _, own = key.rpartition(".")
    return own in _STATISTICS and any(name == layer for name, _ in model.named_modules())


def _is_needed(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
