"""What is measured, by name: ``lethe bench <name>`` runs it.

Nothing here asserts a time. Each benchmark returns what it measured together with the machine it ran on;
ratios are between contenders of one call, as absolute times differ from machine to machine.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from strategies.core.errors import BadInput

if TYPE_CHECKING:
    from app.workflows.observer import Observer

Benchmark = Callable[..., dict[str, Any]]


def _benchmark(module: str, summary: str) -> Benchmark:
    """Return a function that imports a module when it is called, and calls its `run`."""

    def run(observer: "Observer | None" = None, **options: Any) -> dict[str, Any]:
        measure = import_module(f"benchmarks.{module}").run
        known = [name for name in inspect.signature(measure).parameters if name != "observer"]
        if unknown := sorted(set(options) - set(known)):
            allowed = ", ".join(known)
            raise BadInput(f"benchmark {module}: unknown option '{unknown[0]}'; its options are {allowed}")
        result: dict[str, Any] = measure(observer, **options)
        return result

    run.__doc__ = summary
    return run


BENCHMARKS: Mapping[str, Benchmark] = {
    "forgetting": _benchmark(
        "forgetting", "Forget a poisoned client of ten on MNIST, and compare with retraining, over seeds."
    ),
    "methods": _benchmark(
        "methods", "Compare all methods on forgetting a poisoned client, dense and sparse, and in sequence."
    ),
    "classwise": _benchmark(
        "classwise", "Forget a class or a random tenth on one data holder, dense and sparse."
    ),
    "trojan": _benchmark("trojan", "Forget poisoned examples: what is left of the backdoor, by sparsity."),
    "transfer": _benchmark(
        "transfer", "Forget source classes that hurt, then transfer to another task, and compare."
    ),
    "fedmd": _benchmark(
        "fedmd", "FedMD with ten different models: gain, gap to pooled data, upload, consensus, forgetting."
    ),
    "personalisation": _benchmark(
        "personalisation", "Per-FedAvg and Ditto against FedAvg, fine-tuned or not, on shards of two classes."
    ),
    "gossip": _benchmark(
        "gossip", "Decentralised training by topology: how fast disagreement falls, against theory."
    ),
    "coding": _benchmark(
        "coding", "Gradient descent with slow clients: coded, waiting for all, and ignoring the slowest."
    ),
    "simulation": _benchmark(
        "simulation", "Time two training jobs: the local simulation, a plain torch loop, pfl, Flower on Ray."
    ),
    "memory": _benchmark(
        "memory", "Measure the server's peak memory with 10, 100 and 1000 clients and a model of 10 MB."
    ),
    "privacy": _benchmark(
        "privacy", "Time private steps, count the bytes of parts, compare accuracy at equal ε, check ε."
    ),
    "compression": _benchmark(
        "compression", "Count the bytes to 97 % on MNIST, by codec, up and in both directions."
    ),
    "async": _benchmark(
        "waiting", "Compare the simulated time to 97 % on MNIST with slow clients: FedBuff, FedAsync, FedAvg."
    ),
    "selection": _benchmark(
        "selection", "Count the rounds to an accuracy on MNIST, Dirichlet 0.1, by how clients are chosen."
    ),
    "stragglers": _benchmark(
        "stragglers", "FedProx with partial work against FedAvg that drops stragglers, on synthetic(1,1)."
    ),
    "encryption": _benchmark(
        "encryption", "Measure bytes and seconds of encrypted updates and rounds against the keep rate."
    ),
    "secagg": _benchmark(
        "secagg", "Measure seconds and bytes of masked rounds, with and without lost clients."
    ),
    "deployed": _benchmark(
        "deployed.rounds", "Time deployed rounds of hardly any work: Flower's own loop, and Lethe's."
    ),
    "soak": _benchmark(
        "deployed.soak", "Train 200 rounds on a federation of processes whose clients are killed at random."
    ),
    "log": _benchmark(
        "log", "Measure what each kind of update log adds to a round, in seconds and bytes per client."
    ),
}
