"""An export answers as the model does, in a program that cannot import Lethe, and says which model it is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import lethe
from app.data.scale import Scale
from app.project import using
from app.use import Subject, export, graphs, open_subject
from app.use.page import SNIPPETS
from strategies.core.errors import BadInput
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from tests.app.use.conftest import table

ROOT = Path(__file__).parents[3]
ALONE = """
import importlib.util, sys
sys.path[:] = [p for p in sys.path if p not in ("", {root!r})]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "").lower()]
sys.path_hooks[:] = [h for h in sys.path_hooks if "editable" not in getattr(h, "__module__", "").lower()]
assert not any(importlib.util.find_spec(name) for name in ("app", "strategies", "unlearning", "lethe"))
"""
"""What takes Lethe out of the reach of a process, wherever it is installed from."""
SHOW = {
    "torch": "given = [torch.tensor(p) for p in json.loads(open('given.json', 'rb').read()).values()]\n"
    "print(json.dumps(model(*given).tolist()))\n",
    "onnx": "given = json.loads(open('given.json', 'rb').read())\n"
    "given = {n: numpy.array(v, about['inputs'][n]['dtype']) for n, v in given.items()}\n"
    "print(json.dumps(model.run(None, given)[0].tolist()))\n",
}
X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def snippet(folder: Path) -> str:
    """Return the lines of the page that load the export."""
    text = (folder / "README.txt").read_text(encoding="utf-8")
    return text.split("--- python ---\n")[1].split("--- end ---")[0]


def answers_alone(folder: Path, kind: str, given: dict[str, Any]) -> Tensor:
    """Return what a process without Lethe makes of inputs, after the ten lines of the page."""
    code = snippet(folder)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-I", "-c", ALONE.format(root=str(ROOT)) + code + SHOW[kind]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    shape, shown = ended.stdout.splitlines()[-2:]
    assert shape.startswith("torch.Size([4, " if kind == "torch" else "(4, ")
    return torch.tensor(json.loads(shown))


def answers(subject: Subject, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = subject.model(inputs)
    return found


@pytest.mark.check
@pytest.mark.parametrize(("kind", "tolerance"), [("torch", 1e-6), ("onnx", 1e-5)])
def test_the_pages_lines_load_it_without_lethe(
    kind: str, tolerance: float, small: RunFolder, tmp_path: Path
) -> None:
    subject = open_subject(small, "client-2-subtract")
    folder = export(subject, kind, tmp_path / "out").path
    found = answers_alone(folder, kind, {"inputs": X.tolist()})
    assert float((found - answers(subject, X)).abs().max()) <= tolerance


@pytest.mark.check
@pytest.mark.parametrize(("kind", "tolerance"), [("torch", 1e-6), ("onnx", 1e-5)])
def test_a_tables_scale_is_inside(kind: str, tolerance: float, on_table: RunFolder, tmp_path: Path) -> None:
    """It takes the columns as they are measured; a page says in which order."""
    subject = open_subject(on_table)
    folder = export(subject, kind, tmp_path / "out").path
    columns = subject.session.server_data.columns
    assert columns is not None
    raw = columns.apply(table(7))
    found = answers_alone(folder, kind, {"inputs": raw.tolist()})
    scaled = Scale.of_numbers(subject.session.scale).apply(raw)
    assert float((found - answers(subject, scaled)).abs().max()) <= tolerance
    about = read_json(folder / "model.json")
    assert about["columns"]["names"] == ["size", "dose", "city=Oslo", "city=Rome"]
    assert about["classes"] == ["no", "yes"]
    assert about["scale"]["where"].startswith("inside the model")
    assert about["compared"] is True


class Words(nn.Module):
    """Takes tokens and which of them count; a model of a user's own, that only this module has."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        weight = mask.unsqueeze(-1)
        logits: Tensor = self.head((self.words(ids) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))
        return logits


class Branching(nn.Module):
    """Decides by the inputs which way to go, which no graph can say."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.one(x) if float(x.sum()) > 0 else self.other(x)
        return logits


def trained(home: Path, model: nn.Module, data: Any) -> lethe.Run:
    keys = {"run.home": str(home), "run.certificate-key": str(home / "key.pem"), "run.workers": 1}
    project = lethe.Project(model=model, data=data)
    with using(None):
        return lethe.train(project, rounds=1, clients=2, config=keys, progress=False)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> lethe.Run:
    generator = torch.Generator().manual_seed(0)
    ids, y = torch.randint(0, 9, (60, 5), generator=generator), torch.arange(60) % 2
    data = {"ids": ids, "mask": torch.ones(60, 5), "label": y}
    return trained(tmp_path_factory.mktemp("words"), Words(), data)


@pytest.mark.check
@pytest.mark.parametrize(("kind", "tolerance"), [("torch", 1e-6), ("onnx", 1e-5)])
def test_a_users_own_model_of_several_inputs(
    kind: str, tolerance: float, words: lethe.Run, tmp_path: Path
) -> None:
    folder = words.export(tmp_path / "out", kind)
    ids, mask = torch.tensor([[1, 2, 3, 4, 8]] * 3), torch.tensor([[1.0, 1, 0, 0, 1]] * 3)
    found = answers_alone(folder, kind, {"ids": ids.tolist(), "mask": mask.tolist()})
    with torch.no_grad():
        wanted = words.model()(ids, mask)
    assert float((found - wanted).abs().max()) <= tolerance


def test_weights_go_into_the_models_class(words: lethe.Run, tmp_path: Path) -> None:
    folder = words.export(tmp_path / "out", "safetensors")
    model = Words()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    ids, mask = torch.tensor([[1, 2, 3, 4, 8]] * 3), torch.ones(3, 5)
    with torch.no_grad():
        assert torch.equal(model(ids, mask), words.model()(ids, mask))
    about = read_json(folder / "model.json")
    assert about["inputs"]["ids"] == {"shape": [5], "dtype": "int64"}
    assert about["run"]["id"] == RunFolder(words.path).run_id
    exec(compile(snippet(folder).replace('"model.', f'"{folder}/model.'), "page", "exec"), {})


def test_any_number_of_inputs_and_what_the_export_says(small: RunFolder, tmp_path: Path) -> None:
    subject = open_subject(small, "client-2-subtract")
    found = export(subject, "torch", tmp_path / "new" / "out")
    assert found.files == ("README.txt", "certificate.json", "model.json", "model.pt2")
    model = torch.export.load(found.path / "model.pt2").module()
    for count in (1, 2, 7):
        assert float((model(X[:count]) - answers(subject, X[:count])).abs().max()) <= 1e-6
    about = read_json(found.path / "model.json")
    assert about == json.loads(json.dumps(found.description))
    certificate = small.path / "forget" / "client-2-subtract" / "certificate.json"
    assert (found.path / "certificate.json").read_bytes() == certificate.read_bytes()
    signed = read_json(certificate)["certificate"]
    assert about["model-sha256"] == signed["files"]["model after"]
    assert about["forgetting"]["name"] == "client-2-subtract"
    assert about["forgetting"]["certificate"]["path"] == "forget/client-2-subtract/certificate.json"
    assert about["inputs"] == {"inputs": {"shape": [1, 8, 8], "dtype": "float32"}}
    assert (about["run"]["name"], about["task"], about["outputs"]["shape"]) == (
        "small",
        "classification",
        [10],
    )
    content = b"".join(path.read_bytes() for path in found.path.iterdir())
    assert str(ROOT).encode() not in content
    before = read_json(export(open_subject(small), "safetensors", tmp_path / "before").path / "model.json")
    assert before["forgetting"] is None
    assert "from before the forgetting client-2-subtract" in before["notes"][0]


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(small: RunFolder, tmp_path: Path) -> None:
    run = trained(tmp_path / "runs", Branching(), (torch.rand(40, 3), torch.arange(40) % 2))
    with pytest.raises(BadInput, match=r"cannot be exported as torch \(.*--format safetensors") as refused:
        run.export(tmp_path / "out")
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="--format: given 'h5', allowed torch, onnx, safetensors"):
        run.export(tmp_path / "out", "h5")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(BadInput, match="taken, which is there already"):
        run.export(tmp_path / "taken", "safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "small", "taken"]
    assert list(run.export(tmp_path / "taken" / "in", "safetensors").iterdir())


def test_without_its_libraries_onnx_is_refused(
    small: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"^--format onnx: onnx is not installed: pip install 'lethe-fl\[onnx\]'"
    ):
        export(open_subject(small), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_does_not_know_its_inputs_takes_their_shape(small: RunFolder, tmp_path: Path) -> None:
    (small.path / "inputs.json").write_text('{"parts": {}, "scale": []}')
    subject = open_subject(small)
    with pytest.raises(BadInput, match=r"did not record what its inputs are like.*give --data FILE"):
        export(subject, "torch", tmp_path / "out")
    about = export(subject, "torch", tmp_path / "out", X[:1]).description
    assert about["inputs"]["inputs"]["shape"] == [1, 8, 8]


def test_a_page_is_ten_lines_at_most() -> None:
    assert all(len(text.splitlines()) <= 10 for text in SNIPPETS.values())
