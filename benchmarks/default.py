"""Which method should be the default: how well single examples can still be told, at which speed and price.

A client of ten leaves a run on the digits with the default settings. In the case ``plain`` it was honest, in
``hard`` thirty of its labels were wrong by mistake, and in ``poisoned`` it planted a backdoor. The run is
trained again with other seeds, and each of these originals is retrained without the client, once; every
method then forgets the client from each original, and U-LiRA (`unlearning.audit.shadow_attack`) tries to tell
what it left from the retrained models. So all methods are judged by the same pairs of models.

The rule: the default is the method with the smallest distance of the area under the curve from ½, by the
upper end of its interval in its worst case, among those that take at most a twentieth of retraining's time
and whose test accuracy is at most a point below retraining's. Time is that of the processor, of server and
clients in one process, the least of some repetitions. Doing nothing stands beside the methods, and half of
the retrained models against the other half, which is the floor.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.client.staged import staged
from app.config.run_config import RunConfig
from app.data import load_client_data
from app.project import ClientData
from app.workflows import resume, train
from app.workflows.observer import Observer
from app.workflows.opened import OpenedRun
from app.workflows.session import Session
from app.workflows.shadows import seeds_of, trained_with
from benchmarks.default_rows import BEFORE, RETRAIN, Measured, row, rule
from benchmarks.forgetting import ATTACKER
from benchmarks.inline import InlineGrid
from benchmarks.kept import Kept
from benchmarks.options import BenchmarkOptions, chosen
from strategies.client.evaluation import evaluate
from strategies.core.errors import BadInput, LetheError
from strategies.core.settings import split_list
from strategies.runs.folder import MODEL, RunFolder
from strategies.server.cohort import Cohort
from unlearning import forgetting, requirements
from unlearning.audit.measurement import attack_success, margins_under
from unlearning.holdings import Holdings, ask_holdings
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

PLAIN, HARD, POISONED = "plain", "hard", "poisoned"
CASES: Mapping[str, Sequence[str]] = {
    PLAIN: (),
    HARD: ("hard.kind=mislabelled", f"hard.clients={ATTACKER}", "hard.examples=30"),
    POISONED: ("attack.kind=backdoor", f"attack.clients={ATTACKER}"),
}
"""Case -> keys of the run config."""
REQUEST = ForgetRequest(clients=(ATTACKER,))
_REPEATS = 5


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    cases: str = ""
    """Names separated by commas; empty: all."""
    pairs: int = 16
    """Pairs of an original and a retrained model, at least 3; a verdict needs 8."""
    seed: int = 0
    """Of the run; the pairs have those that follow."""
    methods: str = ""
    """Names separated by commas, each with some of its own keys if need be, as in ``finetune:epochs=1``;
    empty: all that serve the request."""
    speed: float = 20.0
    """How many times faster than retraining the default has to be."""
    price: float = 1.0
    """Points of test accuracy that it may lose against retraining."""
    keep: str = ""
    """Folder in which runs and results are kept: a call makes what is missing there and reads the rest, so
    that calls for single cases, methods and fewer pairs add up. Empty: nothing is kept."""
    overrides: str = ""
    """Further keys of the run config, as ``section.key=value`` with blanks between them."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return a table for each case, and which method the rule names."""
    keys = [f"run.seed={options.seed}", *options.overrides.split()]
    with Kept.under(options.keep, {"keys": keys}) as kept:
        cases = [Case(name, keys, options, kept, observer) for name in chosen("cases", options.cases, CASES)]
        tables = {case.name: case.table() for case in cases}
    return {"settings": options.settings(), **tables, "rule": rule(tables, options.speed, options.price)}


@dataclass(frozen=True)
class Contender:
    """A method with its settings; `title` is as the option gave it."""

    title: str
    settings: ForgetSettings

    @staticmethod
    def of(title: str, settings: ForgetSettings) -> "Contender":
        """Read ``method:key=value:key=value``; the section ``forget`` has what is not given.

        Raises
        ------
        BadInput
            If there is no such method, or it has no such key.
        """
        name, *given = title.split(":")
        requirements.find_method(name)
        own = dict(key.partition("=")[::2] for key in given)
        overrides = [f"forget.{name}.{key}={value}" for key, value in own.items()]
        config = RunConfig.from_flat({f"forget.{k}": v for k, v in _flat(settings)}).with_overrides(overrides)
        return Contender(title, config.forget.model_copy(update={"method": name}))


def _flat(settings: ForgetSettings) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a section and their values."""
    for key, value in settings.model_dump(by_alias=True).items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", each) for inner, each in value.items())
        else:
            yield key, value


@dataclass
class Case:
    """One kind of client that leaves, and what the methods make of it, piece by piece."""

    name: str
    keys: Sequence[str]
    options: Options
    kept: Kept
    observer: Observer

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each model."""
        with ExitStack() as stack:
            clients = Clients(self._session, stack)
            contenders = self._contenders()
            self.observer.phase(self.name, self.options.pairs)
            models: list[dict[str, Measured | str]] = []
            for seed in seeds_of(self._session.config, self.options.pairs):
                models.append(Pair(self, seed, clients).measured(contenders))
                self.observer.advance(f"{len(models)} of {self.options.pairs}")
            times = {each.title: self._times_faster(each) for each in contenders}
        return [
            row(name, [pair[name] for pair in models], models, self._marked, self.options.seed, faster)
            for name, faster in {BEFORE: 1.0, **times}.items()
        ]

    def _times_faster(self, contender: Contender) -> float:
        """Return how often a method fits into the processor time of retraining, on the run itself."""
        retrain = Contender(RETRAIN, self._session.config.forget.model_copy(update={"method": RETRAIN}))
        needed = [
            self.piece(f"seconds of {each.title}", partial(self._seconds, each, repeats))["seconds"]
            for each, repeats in ((retrain, 2), (contender, _REPEATS))
        ]
        return float(needed[0] / max(needed[1], 1e-6))

    def _seconds(self, contender: Contender, repeats: int) -> dict[str, float]:
        """Return the processor seconds of a method; 0 where it fails."""
        run, session = self.opened.run, self._session
        found = []
        with session.cohort(InlineGrid(session.config)) as cohort:
            holdings = ask_holdings(run, REQUEST, cohort)
            for _ in range(repeats):
                began = time.process_time()
                with suppress(LetheError):
                    forgotten_by(contender, run, cohort, holdings)
                found.append(time.process_time() - began)
        return {"seconds": min(found)}

    @cached_property
    def opened(self) -> OpenedRun:
        """The run itself, trained if necessary."""
        path = self._home / "run"
        if (path / MODEL).exists():
            folder = RunFolder.open(path)
        elif path.exists():
            folder = resume(RunFolder.open(path), self.observer)
        else:
            folder = train(self._config(), self.observer)
        return OpenedRun.of(folder, self.observer)

    def piece(self, name: str, make: Callable[[], dict[str, Any]]) -> Any:
        """Return a piece of this case by its name; it is made if it is not there."""
        return self.kept.piece(f"{self.name}, {name}".replace("/", "-"), make)

    @property
    def _home(self) -> Path:
        return (self.kept.path / self.name).absolute()

    @property
    def _session(self) -> Session:
        return self.opened.session

    def _config(self) -> RunConfig:
        named = ["data.clients=10", f"run.home={self._home}", "run.name=run", "run.workers=1"]
        return RunConfig().with_overrides([*named, *CASES[self.name], *self.keys])

    def _contenders(self) -> list[Contender]:
        run, settings = self.opened.run, self._session.config.forget
        titles = split_list(self.options.methods) or [
            name
            for name in METHODS
            if name != RETRAIN and requirements.can_serve(run, REQUEST, name, settings)
        ]
        return [Contender.of(title, settings) for title in titles]

    @cached_property
    def _marked(self) -> Tensor:
        return marked(self._session.config)


def marked(config: RunConfig) -> Tensor:
    """Return which examples of the client that leaves are mislabelled or poisoned, shape [k], int64."""
    place = {"partition-id": int(ATTACKER), "num-partitions": config.data.clients}
    found = ClientData(load_client_data(config.data, config.data_seed, place))
    altered = staged(found, config, ATTACKER).altered
    return torch.zeros(0, dtype=torch.int64) if altered is None else altered


@dataclass
class Clients:
    """The clients of a run, which are started when they are first needed; `stack` ends them."""

    session: Session
    stack: ExitStack

    @cached_property
    def cohort(self) -> Cohort:
        """All of them."""
        return self.stack.enter_context(self.session.cohort(InlineGrid(self.session.config)))


@dataclass
class Pair:
    """An original of a case and its retraining, which share a seed, and what methods make of the former."""

    case: Case
    seed: int
    clients: Clients

    def measured(self, contenders: Sequence[Contender]) -> dict[str, Measured | str]:
        """Return what is known of each model; a text says why a method failed."""
        makers: dict[str, Callable[[], tuple[Tensor, float]]] = {
            BEFORE: lambda: (self._original.final, self._original.train_seconds),
            RETRAIN: self._retrained,
        }
        makers |= {each.title: lambda each=each: self._forgotten(each) for each in contenders}  # type: ignore[misc]
        return {name: self._piece(name, make) for name, make in makers.items()}

    def _piece(self, name: str, make: Callable[[], tuple[Tensor, float]]) -> Measured | str:
        def measure() -> dict[str, Any]:
            try:
                flat, seconds = make()
            except LetheError as error:
                return {"error": str(error)}
            run = self.case.opened.run
            margins = margins_under(run, flat, REQUEST, self.clients.cohort, name)
            accuracy, success = _tested(run, flat)
            return Measured(seconds, accuracy, margins, success).to_json()

        found = self.case.piece(f"{name}, seed {self.seed}", measure)
        return str(found["error"]) if "error" in found else Measured.of(found)

    @cached_property
    def _original(self) -> TrainedRun:
        opened = self.case.opened
        folder = trained_with(opened.folder, opened.session.config, self.seed, self.case.observer)
        return OpenedRun.of(folder, None).run

    def _retrained(self) -> tuple[Tensor, float]:
        opened = self.case.opened
        made = opened.retrained_with(REQUEST, self.seed, self.clients.cohort)
        return made.flat, made.seconds or 0.0

    def _forgotten(self, contender: Contender) -> tuple[Tensor, float]:
        cohort = self.clients.cohort.seeded(self.seed)
        holdings = ask_holdings(self._original, REQUEST, cohort)
        made = forgotten_by(contender, self._original, cohort, holdings)
        return made.flat, made.seconds


def _tested(run: TrainedRun, flat: Tensor) -> tuple[float, float | None]:
    """Return a model's test accuracy, and ASR of a run with a backdoor, in percent."""
    if run.test is None:
        raise BadInput("data.test-share: the benchmark needs test data")
    model = run.model(flat)
    success, _ = attack_success(model, run.test, run.trigger, run.task)
    return evaluate(model, run.test, task=run.task).accuracy, success


def forgotten_by(
    contender: Contender, run: TrainedRun, cohort: Cohort, holdings: Holdings
) -> forgetting.ForgetResult:
    """Return what a method makes of a run."""
    settings = contender.settings
    return forgetting.forget(
        run, REQUEST, settings.method, settings, cohort, lambda done, total, values: None, holdings
    )
