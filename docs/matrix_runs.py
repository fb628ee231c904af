"""The runs behind docs/matrix.md: tiny federations that train and forget in this process.

Nothing is written down here about what goes with what: a run works, is refused before any work, or fails.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch
from torch import Tensor, nn

from app.config.run_config import RunConfig
from app.project import ModelSpec, Project, using
from app.project.loading import named
from app.workflows import forget, train
from benchmarks.inline import InlineGrid
from strategies import registry as algorithms
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.seeds import torch_generator
from strategies.core.settings import Scalar
from strategies.layers.compression.codec import CHOICES, FORMS
from strategies.layers.privacy.settings import Unit
from strategies.runs.folder import CONFIG, RunFolder
from strategies.tasks.settings import TaskSettings
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest

WORKS = ""
"""What came of a run that did what it was asked."""
FAILED = "FAILED: "
"""What begins the outcome of a run that neither worked nor was refused before any work."""
TASKS = tuple(get_args(TaskSettings.model_fields["name"].annotation)[1:])
"""The built-in tasks."""
REQUESTS: Mapping[str, ForgetRequest] = {
    "client": ForgetRequest(clients=("1",)),
    "class": ForgetRequest(classes=(1,)),
    "examples": ForgetRequest(samples={"1": (0, 2)}),
}
FLOWER = "flwr:FedAdam"
"""Which of Flower's own strategies stands for them."""
_FREE = {wire.DESCRIBE, wire.HOLDINGS}
"""Messages that ask what a client has, and are no work."""
_BASE = "data.clients=3 data.public=0.2 data.test-share=0.2 run.workers=1"
_ONE_MODEL = "model.name=mlp model.hidden=4"
_LOCAL_STEPS = "train.local-epochs=1 train.batch-size=8 train.momentum=0"
_LESS_WORK: Mapping[str, str] = {
    "strategy.models": "mlp-4",
    "strategy.public-epochs": "1",
    "strategy.private-epochs": "1",
    "strategy.revisit-epochs": "1",
    "strategy.distil-epochs": "1",
}
"""Values of the keys of single algorithms."""
_FORMS = ("strategy.ensemble=logits",)
"""Values with which a strategy needs something else of the task; such a form has a column of its own."""
_SHORT: Mapping[str, Scalar] = {
    "epochs": 1,
    "recovery-rounds": 1,
    "unlearning-rounds": 1,
    "fisher-examples": 8,
    "alpha-search": "0.5, 1",
    "max-retain-drop": 100,
}
"""Values of the keys of single methods."""


def strategies() -> dict[str, str]:
    """Return the keys that choose each strategy, by its name."""
    found = {}
    for traits in algorithms.all_traits():
        name = FLOWER if traits.is_family else traits.name
        keys = traits.keys
        own = [f"{key}={value}" for key, value in _LESS_WORK.items() if key in keys]
        sizes = [_ONE_MODEL] if traits.one_model else []
        steps = [_LOCAL_STEPS] if traits.local_steps else []
        rounds = 3 if traits.asynchronous else 1  # So that every client has a part in the model
        found[name] = " ".join([f"strategy.name={name} run.rounds={rounds}", *sizes, *steps, *own])
        found |= {f"{name} {key}": f"{found[name]} {key}" for key in _FORMS if key.partition("=")[0] in keys}
    return found


def options() -> dict[str, str]:
    """Return the keys of each codec, privacy unit, kind of log and of groups, by what to call it."""
    codecs = ["identity", *CHOICES[1:], *FORMS[1:], f"{CHOICES[1]}+{FORMS[1]}"]
    found = {f"codec {codec}": f"compression.codec={codec}" for codec in codecs}
    for unit in get_args(Unit)[1:]:
        found[f"privacy {unit}"] = (
            f"privacy.unit={unit} privacy.noise-multiplier=1 privacy.delta=0.001 privacy.accountant=rdp"
        )
    found["secure aggregation"] = "privacy.secure-aggregation=true log.enabled=false"
    found |= {f"log {kept}": f"log.retention={kept} run.rounds=2" for kept in ("sum", "interval:2")}
    found["linear model"] = "model.name=linear model.hidden=128"  # The default, as it has no hidden layer
    return found | {"no log": "log.enabled=false", "two groups apart": "train.isolation=2"}


def _numbers() -> tuple[Tensor, Tensor]:
    x = torch.randn(60, 3, generator=torch_generator(0))
    return x, x @ torch.tensor([1.0, -1.5, 0.5])


def _classes() -> tuple[Tensor, Tensor]:
    x, y = _numbers()
    return x, (y > -1).long() + (y > 1).long()


def _labels() -> tuple[Tensor, Tensor]:
    x, _ = _numbers()
    return x, x > 0


def _masks() -> tuple[Tensor, Tensor]:
    x = torch.rand(60, 1, 4, 4, generator=torch_generator(1))
    return x, (x[:, 0] > 0.5).long()


def _pixels(spec: ModelSpec) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, spec.num_outputs, 1))


_DATA: Mapping[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "classification": _classes,
    "multi-label": _labels,
    "regression": _numbers,
    "segmentation": _masks,
}
_CLASSES: Mapping[str, tuple[str, ...]] = {"segmentation": ("dark", "bright")}
_MODELS: Mapping[str, Callable[[ModelSpec], nn.Module]] = {"segmentation": _pixels}


def project_of(task: str) -> Project:
    """Return a project of made examples for a built-in task."""
    return Project(task=task, data=_DATA[task], model=_MODELS.get(task), classes=_CLASSES.get(task, ()))


@dataclass
class Runs:
    """A tiny federation that trains once, and forgets as often as it is asked.

    Parameters
    ----------
    home
        Folder of the run.
    keys
        Of the run config, besides those that make the run small.
    """

    home: Path
    keys: str
    folder: RunFolder | None = None

    def __post_init__(self) -> None:
        places = [f"run.home={self.home / 'runs'}", f"run.certificate-key={self.home / 'key.pem'}"]
        self._given = [*_BASE.split(), *self.keys.split(), *places]
        self._grid: InlineGrid | None = None

    def train(self) -> str:
        """Train; return what came of it."""

        def work() -> None:
            config = RunConfig().with_overrides(self._given)
            self._grid = InlineGrid(config)
            self.folder = train(config, None, self._grid)
            _require(not (faults := self.folder.read_summary()["faults"]), str(faults[:1]))
            _require(all(t.isfinite().all() for t in self.folder.read_model().values()), "not finite")

        return self._outcome(work)

    def forget(self, request: ForgetRequest, method: str) -> str:
        """Forget by a method; return what came of it."""
        folder, grid = self.folder, self._grid
        if folder is None or grid is None:
            raise LetheError("there is no run")
        chosen = METHODS[method]
        own = chosen.settings.model_fields
        short = [f"{method}.{k}={v}" for k, v in _SHORT.items() if k.replace("-", "_") in own]
        prune = ["prune=omp", "sparsity=0.5"] if chosen.prunes_anew else []
        given = [f"forget.{key}" for key in (f"method={method}", *short, *prune)]
        grid.asked.clear()

        def work() -> None:
            config = RunConfig.resolve(folder.path / CONFIG, given)  # As the command line does
            name = forget(folder, request, config.forget, None, grid)
            (path,) = folder.path.rglob(f"forget/{name}")
            result = json.loads((path / "result.json").read_text(encoding="utf-8"))
            _require(not result["warnings"], str(result["warnings"][:1]))
            _require("unchanged" not in result["details"], "the model is unchanged")

        return self._outcome(work)

    def _outcome(self, work: Callable[[], None]) -> str:
        before = _contents(self.home)
        try:
            work()
        except BadInput as refusal:
            asked = set() if self._grid is None else self._grid.asked.keys() - _FREE
            left = _contents(self.home) != before
            late = f"after {sorted(asked)}" if asked else "and left something behind" if left else ""
            return f"{FAILED}refused {late}: {refusal}" if late else str(refusal)
        except Exception as error:  # noqa: BLE001 (whatever goes wrong is what the page must tell)
            return f"{FAILED}{type(error).__name__}: {error}"
        return WORKS


def _require(right: bool, what: str) -> None:
    if not right:
        raise LetheError(what)


def _contents(home: Path) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(home.rglob("*")) if p.is_file()}


def outcomes(task: str, keys: str, kinds: Sequence[str]) -> dict[tuple[str, str], str]:
    """Train with these keys and forget by every method; return what came of each (method, kind of request).

    A run that did not train has that outcome in all places.
    """
    cells = [(method, kind) for method in METHODS for kind in kinds]
    with TemporaryDirectory() as home, using(named(project_of(task))):
        runs = Runs(Path(home), keys)
        trained = runs.train()
        if trained != WORKS:
            return dict.fromkeys(cells, trained)
        return {(method, kind): runs.forget(REQUESTS[kind], method) for method, kind in cells}
