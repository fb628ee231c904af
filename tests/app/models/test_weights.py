"""Weights from files of each kind and from runs; another architecture; nothing is executed."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.models.norms import settle_batch_norm
from app.models.weights import load_weights, weights_place
from strategies.core.errors import BadInput
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.runs.tensor_file import write_sealed


def model(seed: int = 0) -> nn.Sequential:
    with seeded_layers(torch_generator(seed)):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def save_torch(path: Path, content: object) -> None:
    torch.save(content, path)  # noqa: TID251 - what users have


def save_npz(path: Path, state: dict[str, Tensor]) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})


def save_nested(path: Path, state: dict[str, Tensor]) -> None:
    save_torch(path, {"epoch": 3, "state_dict": state})


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.safetensors", write_sealed),
        ("w.npz", save_npz),
        ("w.pt", save_torch),
        ("w.pth", save_nested),
    ],
)
def test_a_file_of_each_kind_is_read(
    name: str, write: Callable[[Path, dict[str, Tensor]], object], tmp_path: Path
) -> None:
    source, target = model(1), model(2)
    source[1].running_mean.fill_(5.0)  # type: ignore[union-attr, operator]
    write(tmp_path / name, dict(source.state_dict()))
    load_weights(target, str(tmp_path / name), "it")
    assert all(torch.equal(t, target.state_dict()[key]) for key, t in source.state_dict().items())


def test_another_architecture_is_one_line(tmp_path: Path) -> None:
    state = dict(model().state_dict())
    state["more"] = state.pop("2.bias")
    state["0.weight"] = torch.zeros(4, 9)
    write_sealed(tmp_path / "w.safetensors", state)
    expected = (
        "is of another architecture than it: missing 2.bias; unexpected more; "
        "wrong shapes 0.weight (4, 9) for (4, 3)"
    )
    with pytest.raises(BadInput, match=re.escape(expected)):
        load_weights(model(), str(tmp_path / "w.safetensors"), "it")


def test_weights_of_batch_norm_go_into_the_group_norm_in_its_place(tmp_path: Path) -> None:
    source, target = model(1), model(2)
    with torch.no_grad():
        source[1].weight.fill_(7.0)  # type: ignore[union-attr, operator]
    save_torch(tmp_path / "w.pt", source.state_dict())
    settle_batch_norm(target, "group")
    load_weights(target, str(tmp_path / "w.pt"), "it")
    assert target.state_dict()["1.weight"].tolist() == [7.0] * 4


def test_a_tied_weight_may_have_one_name(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    write_sealed(tmp_path / "w.safetensors", {"0.weight": torch.eye(2)})
    load_weights(tied, str(tmp_path / "w.safetensors"), "it")
    assert torch.equal(tied.state_dict()["1.weight"], torch.eye(2))


class Harmful:
    """Leaves a trace when a pickle of it is read."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Have the reader make a folder."""
        return os.mkdir, (str(self._trace),)


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    save_torch(tmp_path / "w.pt", {"a": Harmful(tmp_path / "trace")})
    np.savez(tmp_path / "w.npz", a=np.array([Harmful(tmp_path / "trace")], dtype=object))
    for name in ("w.pt", "w.npz"):
        with pytest.raises(BadInput, match="cannot be read as named tensors alone") as raised:
            load_weights(model(), str(tmp_path / name), "it")
        assert "\n" not in str(raised.value)
        assert "PyTorch" not in str(raised.value)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100])
@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
def test_a_damaged_file_is_one_line(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / f"w.{kind}").write_bytes(content)
    with pytest.raises(BadInput, match=r"^model\.weights: "):
        load_weights(model(), str(tmp_path / f"w.{kind}"), "it")


def test_a_place_is_a_file_a_runs_name_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "runs" / "first" / "forget" / "client-1-retrain", tmp_path / "runs" / "first"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").touch()
    home = tmp_path / "runs"
    assert weights_place("", home) == ""
    assert weights_place("w.pt", home) == str(tmp_path / "w.pt")
    assert weights_place("first", home) == weights_place("runs/first", home) == str(home / "first")
    assert weights_place("first/forget/client-1-retrain", home).endswith("forget/client-1-retrain")
    with pytest.raises(BadInput, match="given 'second', allowed a file"):
        weights_place("second", home)
