"""A federation whose model has two weights, so that forgetting can be drawn; every method forgets in it.

``python -m docs.toy`` runs it and writes docs/forgetting/paths.json, which `docs.pictures` draws. Four
clients tell two kinds of examples apart by two numbers. The first number tells them for everybody. The second
tells them for client 3 alone, like the mark of a backdoor; for all others it is noise. So the first weight is
what the clients share, and the second is what client 3 left in the model.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final
from unittest.mock import patch

import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn

import lethe
from app.config.run_config import RunConfig
from app.forgettings.names import RESULT
from app.project import using
from app.project.loading import named
from app.workflows import forget, train
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from benchmarks.inline import InlineGrid
from strategies.core import wire
from strategies.core.secret_random import RandomStream
from strategies.core.seeds import torch_generator
from strategies.runs.files import read_json
from strategies.runs.folder import CONFIG, MODEL
from strategies.runs.tensor_file import read_sealed
from strategies.server.grids import BaseGrid
from unlearning.central.fisher import fisher_forget
from unlearning.methods import METHODS
from unlearning.methods.redistill import kept_answers
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.traits.fisher import FisherSettings

PATHS = "docs/forgetting/paths.json"
LEAVING = "3"
CLIENTS = 4
_EXAMPLES = 80
_KEYS = f"data.clients={CLIENTS} run.workers=1 run.name=toy"
ROUNDS = 8
_SHARED = (
    f"run.rounds={ROUNDS} train.learning-rate=0.3 train.momentum=0 train.local-epochs=1 train.batch-size=16"
)
_OWN_MODELS = "run.rounds=1 strategy.name=fedmd strategy.models=mlp-4"
_FISHER_ALPHA, _DRAWS = 0.002, 24
_CAUTIOUS = 0.3
"""The α of `fast-distill` over all rounds."""
_SLOWLY = 0.06
"""The learning rate where numbers are predicted."""
_ELSEWHERE = ("redistill", "reprune", "fedosd", "sifu")
"""Methods that need another run: FedMD; a pruned one; one in which some direction leaves the others alone;
one whose outputs are those of its one layer."""
_OWN: Mapping[str, str] = {
    "finetune": "epochs=6",
    "l1-sparse": "epochs=6 gamma=0.02",
    "negate": "epochs=6",
    "federaser": "ratio=1.0",
    "distill": "learning-rate=0.5 epochs=30",
    "fast-distill": "learning-rate=0.5",
    "fisher": f"alpha={_FISHER_ALPHA}",
    "neggrad": "epochs=4 beta=0.7",
    "scrub": "epochs=6 max-epochs=4",
    "random-labels": "epochs=2",
    "bad-teacher": "epochs=6",
    "salun": "epochs=2",
    "ssd": "alpha=0.3 dampening=0.05",
    "fedosd": "unlearning-rounds=10 learning-rate=1.0",
    "influence": "alphas=1",
    "sifu": "noise=0.15 epsilon=8 delta=0.01",
    "ascent": "epochs=4 recovery-rounds=4 learning-rate=0.3",
}
"""Keys of single methods, so that a path shows what they do."""

Point = list[float]
"""Both weights."""


class Both(nn.Module):
    """Turns one number z into the logits −z/2 and z/2."""

    def forward(self, z: Tensor) -> Tensor:
        """Return the logits, shape [n, 2], of numbers, shape [n, 1]."""
        return torch.cat([-z / 2, z / 2], dim=1)


def two_weights(spec: lethe.ModelSpec) -> nn.Module:
    """Return the model, which knows nothing: both weights are 0."""
    linear = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(linear.weight)
    return nn.Sequential(linear, Both())


def examples(seed: int, *, marked: bool = False, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return inputs, shape [n, 2], and labels, shape [n]; the second input tells them if `marked`."""
    draw = torch_generator(seed, "toy")
    count = _EXAMPLES * (2 if marked else 1)
    y = torch.arange(count) % 2
    signs = 2.0 * y - 1
    first = 0.7 * signs + torch.randn(count, generator=draw)
    second = (2.0 * signs if marked else 0.0) + noise * torch.randn(count, generator=draw)
    return torch.stack([first, second], dim=1), y


def data(node: lethe.Node) -> tuple[Tensor, Tensor]:
    """Return a client's examples."""
    return examples(node.index, marked=str(node.index) == LEAVING)


PROJECT = lethe.Project(
    model=two_weights,
    data=data,
    public=examples(10, noise=0.15),
    test=examples(11),
    classes=("left", "right"),
)


def one_layer(spec: lethe.ModelSpec) -> nn.Module:
    """Return a model of two weights as well, of which one linear layer is all; it gives a number."""
    linear = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def numbered(found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return examples with −1 and 1 in place of the two classes."""
    x, y = found
    return x, 2.0 * y - 1


ONE_LAYER = lethe.Project(
    model=one_layer, data=lambda node: numbered(data(node)), test=numbered(examples(11)), task="regression"
)


@final
class Watched(BaseGrid):
    """A grid that remembers every model that it sent to be trained."""

    def __init__(self, config: RunConfig) -> None:
        self._grid = InlineGrid(config)
        self.sent: list[Point] = []

    def get_node_ids(self) -> list[int]:
        """Return the ids of all clients' nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Note each message's model, and have each client answer."""
        kept = list(messages)
        for message in kept:
            record = message.content.array_records.get(wire.ARRAYS, ArrayRecord())
            found = [float(x) for array in record.values() for x in array.numpy().flatten()]
            if len(found) == 2 and found not in self.sent[-1:]:
                self.sent.append(found)
        return self._grid.push_messages(kept)

    def pull_messages(self, message_ids: Iterable[str | None]) -> list[Message]:
        """Return the replies to these messages, each once."""
        return self._grid.pull_messages(message_ids)


class Toy:
    """The federation, trained once; every method forgets the leaving client of it.

    Parameters
    ----------
    home
        Folder of its runs.
    keys
        Of the run config, besides the toy's.
    """

    def __init__(self, home: Path, keys: str = _SHARED) -> None:
        places = [f"run.home={home / 'runs'}", f"run.certificate-key={home / 'key.pem'}"]
        config = RunConfig().with_overrides([*_KEYS.split(), *keys.split(), *places])
        self._grid = Watched(config)
        self.folder = train(config, None, self._grid)
        self.trained = list(self._grid.sent)

    def opened(self) -> TrainedRun:
        """Return the run as forgetting methods get it."""
        return open_trained_run(self.folder, open_session(self.folder))

    def forget(self, method: str, *keys: str) -> list[Point]:
        """Return the models that a method had trained, and the one that it ends with."""
        self._grid.sent.clear()
        given = [
            f"forget.method={method}",
            *(f"forget.{method}.{key}" for key in _OWN.get(method, "").split()),
        ]
        config = RunConfig.resolve(self.folder.path / CONFIG, [*given, *keys])
        name = forget(self.folder, ForgetRequest(clients=(LEAVING,)), config.forget, None, self._grid)
        on_pruned = any(key.startswith("forget.prune") for key in keys)
        places = self.folder.path.rglob(f"forget/{name}")
        (place,) = [path for path in places if ("pruned" in path.parts) == on_pruned]
        return [*self._grid.sent, weights_in(place)]


def weights_in(folder: Path) -> Point:
    """Return both weights of the model in a folder."""
    (tensor,) = read_sealed(folder / MODEL).tensors.values()
    return [float(x) for x in tensor.flatten()]


def taken(run: TrainedRun) -> list[Point]:
    """Return the models while the leaving client's logged updates are subtracted, the last round's first."""
    log, model, found = run.log, run.final.double(), []
    assert log is not None
    for number in reversed(log.rounds()):
        for entry in log.entries(number):
            if entry.client_id == LEAVING:
                model = model - entry.weight * log.delta(number, LEAVING).double()
                found.append([float(x) for x in model])
    return found


def answers(home: Path) -> dict[str, Any]:
    """Return how sure FedMD's clients are of two public examples, and the consensus of all and of the rest.

    An answer to an example is the difference of its two logits.
    """
    toy = Toy(home, _OWN_MODELS)
    log = toy.opened().log
    assert log is not None
    (number,) = log.kept_rounds()
    each = kept_answers(log, number, (), 2)
    shown = {i: [float(z[1] - z[0]) for z in logits[:2]] for i, logits in each.items()}
    rest = {i: logits for i, logits in each.items() if i != LEAVING}
    means = [torch.stack(list(some.values())).mean(dim=0)[:2] for some in (each, rest)]
    return {"answers": shown, "consensus": [[float(z[1] - z[0]) for z in mean] for mean in means]}


def drawn(toy: Toy) -> list[Point]:
    """Return where Fisher forgetting ends with other draws of its noise."""
    x, y = (torch.cat(parts) for parts in zip(*(examples(i) for i in range(CLIENTS - 1)), strict=True))
    settings = FisherSettings(alpha=_FISHER_ALPHA)
    run = toy.opened()
    twins = [
        fisher_forget(run.model(run.final), [(x, y)], settings, torch_generator(i, "toy"))
        for i in range(_DRAWS)
    ]
    return [nn.utils.parameters_to_vector(twin.parameters()).tolist() for twin in twins]


def hidden(home: Path) -> dict[str, Any]:
    """Return the way of `sifu`: the training, what it had trained, and other draws of its noise."""
    with using(named(ONE_LAYER)):
        toy = Toy(home, f"{_SHARED} train.learning-rate={_SLOWLY}")
        with patch.object(
            RandomStream, "secret", lambda: RandomStream.seeded(0, "toy")
        ):  # So that it repeats
            _, *path = toy.forget("sifu")  # The first is the initial model, with which clients are only asked
        result = read_json(toy.folder.path / "forget" / f"client-{LEAVING}-sifu" / RESULT)
        certified = result["details"]["certified"]
        kept, noise = toy.trained[certified["kept-round"]], certified["noise"]
        cloud = RandomStream.seeded(1, "toy").normal(2 * _DRAWS).view(-1, 2) * noise + torch.tensor(kept)
        trained = [*toy.trained, weights_in(toy.folder.path)]
        found = {"kept": kept, "cloud": cloud.tolist(), "sifu": path, "retrain": toy.forget("retrain")}
        return {"train": trained, **found}


def measured() -> dict[str, Any]:
    """Return all that is drawn: paths of models by method, and what FedMD's clients answer."""
    with TemporaryDirectory() as home, using(named(PROJECT)):
        toy = Toy(Path(home))
        paths = {name: toy.forget(name) for name in METHODS if name not in _ELSEWHERE}
        pruned = ("forget.prune=omp", "forget.sparsity=0.5")
        paths |= {f"{name} pruned": toy.forget(name, *pruned) for name in ("retrain", "reprune")}
        cautious = toy.forget("fast-fedul", f"forget.fast-fedul.alpha={_CAUTIOUS / ROUNDS}")
        pair = Toy(Path(home) / "pair", f"{_SHARED} data.without=1,2")
        return {
            "train": [*toy.trained, weights_in(toy.folder.path)],
            "taken": taken(toy.opened()),
            "cautious": cautious,
            "draws": drawn(toy),
            "methods": paths,
            "pair": {
                "train": [*pair.trained, weights_in(pair.folder.path)],
                **{name: pair.forget(name) for name in ("fedosd", "retrain")},
            },
            "hidden": hidden(Path(home) / "sifu"),
            **answers(Path(home) / "fedmd"),
        }


def main() -> None:
    """Run every method and write down its path."""
    text = json.dumps(rounded(measured()), indent=1)
    text = re.sub(r"\[\s+(-?[\d.]+),\s+(-?[\d.]+)\s+\]", r"[\1, \2]", text)
    Path(PATHS).write_text(f"{text}\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Return the same with all numbers to three digits behind the point."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else round(value, 3)


if __name__ == "__main__":
    main()
