"""What is measured, by name: ``lethe bench <name>`` runs it.

Nothing here asserts a time. Each benchmark returns what it measured together with the machine it ran on;
ratios are between contenders of one call, as absolute times differ from machine to machine.

A benchmark is a module with a class ``Options`` (see `benchmarks.options`) and a function ``run`` that takes
such options and an observer, which is told how far it is.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.workflows.observer import Observer

Benchmark = Callable[..., dict[str, Any]]

_SUMMARIES: Mapping[str, str] = {
    "forgetting": "Forget a poisoned client of ten on MNIST, and compare with retraining, over seeds.",
    "methods": "Compare all methods on forgetting a poisoned client, dense and sparse, and in sequence.",
    "default": "Which method should be the default: what tells single examples, at which speed.",
    "isolation": "Train groups of clients apart: the price in accuracy, and what forgetting takes.",
    "classwise": "Forget a class or a random tenth on one data holder, dense and sparse.",
    "sparsity": "All central methods at several sparsities: disparity, floor, shadow models, in pieces.",
    "suspects": "Rank a bad client from the log: how often it is first, named, or an honest one is.",
    "trojan": "Forget poisoned examples: what is left of the backdoor, by sparsity.",
    "transfer": "Forget source classes that hurt, then transfer to another task, and compare.",
    "fedmd": "FedMD with ten different models: gain, gap to pooled data, upload, consensus, forgetting.",
    "personalisation": "Per-FedAvg and Ditto against FedAvg, fine-tuned or not, on shards of two classes.",
    "gossip": "Decentralised training by topology: how fast disagreement falls, against theory.",
    "coding": "Gradient descent with slow clients: coded, waiting for all, and ignoring the slowest.",
    "simulation": "Time three training jobs: the local simulation, a plain torch loop, pfl, Flower on Ray.",
    "seeds": "Train the digits mlp with 16 seeds side by side, and one after another.",
    "memory": "Measure the server's peak memory with 10, 100 and 1000 clients and a model of 10 MB.",
    "scale": "Measure seconds, the server's time per client and memory of rounds of 10 to 10,000 clients.",
    "large": "Train, forget, verify and report a large model: memory in models, seconds, bytes on disk.",
    "costs": "Draw seconds and memory of runs against their clients (10 to 10,000), rounds and parameters.",
    "images": "Train a folder of JPEGs decoded batch by batch: speed and memory beside a plain torch loop.",
    "privacy": "Time private steps, count the bytes of parts, compare accuracy at equal ε, check ε.",
    "compression": "Count the bytes to 97 % on MNIST, by codec, up and in both directions.",
    "async": "Compare the simulated time to 97 % on MNIST with slow clients: FedBuff, FedAsync, FedAvg.",
    "selection": "Count the rounds to an accuracy on MNIST, Dirichlet 0.1, by how clients are chosen.",
    "stragglers": "FedProx with partial work against FedAvg that drops stragglers, on synthetic(1,1).",
    "encryption": "Measure bytes and seconds of encrypted updates and rounds against the keep rate.",
    "secagg": "Measure seconds and bytes of masked rounds, with and without lost clients.",
    "deployed": "Time deployed rounds of hardly any work: Flower's own loop, and Lethe's.",
    "deployed-large": "Train a large model over a deployed federation: memory of each process in models.",
    "soak": "Train 200 rounds on a federation of processes whose clients are killed at random.",
    "watching": "Measure what lethe watch and the trackers cost a run, and the delay of its page.",
    "log": "Measure what each kind of update log adds to a round, in seconds and bytes per client.",
}
_MODULES: Mapping[str, str] = {
    "async": "waiting",
    "deployed": "deployed.rounds",
    "deployed-large": "deployed.large",
    "soak": "deployed.soak",
}
"""The modules of those benchmarks that have another name."""


def module_of(name: str) -> str:
    """Return the import path of a benchmark's module."""
    return f"benchmarks.{_MODULES.get(name, name)}"


def _benchmark(name: str, summary: str) -> Benchmark:
    """Return a function that imports a benchmark when it is called, and runs it with the given options."""

    def run(observer: "Observer | None" = None, **given: Any) -> dict[str, Any]:
        from app.workflows.observer import Quiet
        from benchmarks.figures import machine

        module = import_module(module_of(name))
        options = module.Options.of(name, given)
        return {"machine": machine(), **module.run(options, observer or Quiet())}

    run.__doc__ = summary
    return run


BENCHMARKS: Mapping[str, Benchmark] = {
    name: _benchmark(name, summary) for name, summary in _SUMMARIES.items()
}
