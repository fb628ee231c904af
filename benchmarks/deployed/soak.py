"""Many deployed rounds while clients are killed and started again at random.

Asked is what a long run must show: that no round is lost, that the server does not grow, and that the model
is as good as one that nobody disturbed.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.config.run_config import RunConfig
from app.workflows import train
from app.workflows.observer import Observer
from benchmarks.deployed.federation import Federation, nodes_of
from benchmarks.options import BenchmarkOptions
from strategies.core.errors import LetheError
from strategies.core.seeds import numpy_generator
from strategies.core.settings import Scalar
from strategies.runs.folder import RunFolder

_NAME = "soak"
_LOOK_SECONDS = 0.2
_AWAY_SECONDS = 3.0
"""From a client's death to an attempt to start it again."""
_SETTLED = 0.1
"""Share of the rounds after which the server's memory is looked at first, and of the last ones looked at."""


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    rounds: int = 200
    clients: int = 5
    """Of the training."""
    seconds_between_kills: float = 40.0
    """From one kill to the next, on average (exponential)."""
    round_timeout: float = 30.0
    """Seconds the server waits for an answer that does not come."""
    seed: int = 0
    """Of the training and of the kills."""
    keep: str = ""
    """Folder in which all files are left; empty: none are."""

    def config(self) -> dict[str, Scalar]:
        """Return the config of the run."""
        return {
            "run.name": _NAME,
            "run.rounds": self.rounds,
            "run.seed": self.seed,
            "run.round-timeout": self.round_timeout,
            "run.evaluate-every": 5,
            "data.clients": self.clients,
            "model.name": "mlp",
            "model.hidden": 32,
            "log.retention": "sum",
        }


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Train digits on a federation of processes and kill a client every now and then.

    Returns
    -------
    dict
        ``rounds``, ``completed``, ``lost`` (rounds without any client's update), ``kills``, ``faults``
        (answers that were missing), ``seconds``, ``accuracy`` and ``undisturbed-accuracy`` in percent, and
        for ``server-app`` and ``superlink`` the resident memory in MB after a tenth of the rounds and at the
        end, and the growth in percent.

    Raises
    ------
    LetheError
        If the run does not come to its end; the message holds the end of its log.
    """
    with tempfile.TemporaryDirectory() as temporary:
        names = [str(i) for i in range(options.clients)]
        with Federation(Path(options.keep or temporary), names, nodes_of(names)) as federation:
            federation.start(warm=True)
            soak = _Soak(federation, options, observer)
            soak.watch()
        found = RunFolder.open(_NAME, federation.runs)
        home = Path(temporary) / "undisturbed"
        overrides = [f"{key}={value}" for key, value in options.config().items()]
        calm = train(RunConfig().with_overrides([*overrides, f"run.home={home}", "run.workers=1"]))
        return {
            "rounds": options.rounds,
            **_outcome(found),
            "kills": soak.kills,
            "undisturbed-accuracy": calm.read_summary()["final"]["test-accuracy"],
            "server-app": growth(soak.server_app_mb),
            "superlink": growth(soak.superlink_mb),
        }


@dataclass
class _Soak:
    """A run under observation."""

    federation: Federation
    options: Options
    observer: Observer
    kills: int = 0
    _dead_since: dict[str, float] = field(default_factory=dict)
    server_app_mb: list[float] = field(default_factory=list)
    superlink_mb: list[float] = field(default_factory=list)

    def watch(self) -> None:
        """Kill and restart clients until the run ends; note the server's memory after each round."""
        federation, draw = self.federation, numpy_generator(self.options.seed, "soak")
        between = self.options.seconds_between_kills
        told = {**self.options.config(), "run.home": str(federation.runs)}
        process = federation.start_run(told, _NAME)
        self.observer.phase("soak", self.options.rounds)
        next_kill = 0.0
        while process.poll() is None:
            now = time.monotonic()
            self._look()
            next_kill = next_kill or (self.server_app_mb and now + draw.exponential(between)) or 0.0
            if next_kill and now >= next_kill:
                self._kill(str(draw.choice(federation.clients)), gently=draw.random() < 0.5)
                next_kill = now + draw.exponential(between)
            self._restart(now)
            time.sleep(_LOOK_SECONDS)

    def _kill(self, name: str, *, gently: bool) -> None:
        """End a client's processes in whatever they do; the SuperLink is told or, more often, not."""
        if self.federation.is_running(name):
            (self.federation.stop if gently else self.federation.kill)(name)
            self.federation.kill(f"executor-{name}")
            self.kills += 1

    def _restart(self, now: float) -> None:
        """Start dead clients again every few seconds, as systemd does.

        A SuperLink that was not told of a node's death refuses it until it has missed two heartbeats.
        """
        for name in self.federation.clients:
            if self.federation.is_running(name):
                self._dead_since.pop(name, None)
            elif now - self._dead_since.setdefault(name, now) > _AWAY_SECONDS:
                self.federation.start_node(name, warm=True)
                del self._dead_since[name]

    def _look(self) -> None:
        done = len(rounds_of(self.federation.runs / _NAME))
        while len(self.server_app_mb) < done:
            self.server_app_mb.append(self.federation.resident_mb("flwr-serverapp"))
            self.superlink_mb.append(self.federation.resident_mb("flower-superlink"))
            self.observer.advance(f"round {done}")


def rounds_of(path: Path) -> list[dict[str, Any]]:
    """Return the rounds that a run has written down so far."""
    metrics = path / "metrics.jsonl"
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]  # The last one may be half written
    return [json.loads(line) for line in lines]


def _outcome(folder: RunFolder) -> dict[str, Any]:
    lines = rounds_of(folder.path)
    if not (folder.path / "summary.json").exists():
        raise LetheError(f"the run ended after {len(lines)} rounds; look at {folder.path}")
    summary = folder.read_summary()
    return {
        "completed": len(lines),
        "lost": sum(not line["accepted"] for line in lines),
        "faults": len(summary["faults"]),
        "rounds-with-faults": sum(bool(line["faults"]) for line in lines),
        "seconds": summary["seconds"],
        "median-round-seconds": statistics.median(line["seconds"] for line in lines),
        "accuracy": summary["final"]["test-accuracy"],
    }


def growth(megabytes: Sequence[float]) -> dict[str, float]:
    """Return how much a process has grown from a tenth of its rounds on, by medians over a tenth each.

    Examples
    --------
    >>> growth([50.0, *[100.0] * 8, 104.0])
    {'early-mb': 100.0, 'late-mb': 104.0, 'growth-percent': 4.0}
    """
    tenth = max(1, round(len(megabytes) * _SETTLED))
    early, late = statistics.median(megabytes[tenth : 2 * tenth]), statistics.median(megabytes[-tenth:])
    return {"early-mb": early, "late-mb": late, "growth-percent": round(100 * (late / early - 1), 2)}
