"""What clients with different models gain from each other, and what forgetting one of them takes.

The protocol of the paper (Li, Wang, arXiv 1910.03581) on data at hand: ten clients with a few private
examples per class learn a public data set first. Measured are the accuracy before and after the rounds, that
of the same models trained on all private data together, the upload, and `redistill` against retraining.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from app.config.run_config import RunConfig
from app.workflows.forgetting import OpenedRun
from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from app.workflows.training import train
from benchmarks.jobs import chosen, machine
from strategies.fedmd.settings import FedMDSettings
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

_DIGITS = ("data.name=digits", "data.public=mnist")
_ANIMALS, _VEHICLES = "data.classes=2,3,4,5,6,7", "data.public-classes=0,1,8,9"
_BLIND = ("data.partition=half-blind",)
CASES: Mapping[str, Sequence[str]] = {
    "digits-iid": _DIGITS,
    "digits-non-iid": (*_DIGITS, "data.partition=pathological", "data.classes-per-client=3"),
    "digits-five": (*_DIGITS, "data.partition=pathological", "data.classes-per-client=5"),
    "digits-half-blind": (*_DIGITS, *_BLIND),
    "digits-poisoned": (*_DIGITS, "attack.kind=backdoor", "attack.clients=3", "attack.share=1"),
    "cifar-iid": (_ANIMALS, _VEHICLES),
    "cifar-non-iid": (_VEHICLES, "data.classes=2+6,3+7,4+5", "data.partition=kinds"),
    "cifar-half-blind": (_ANIMALS, _VEHICLES, *_BLIND),
}
"""MNIST public and digits private, all of their classes apart; vehicles of CIFAR-10 public, animals private.

Non-IID, a client has three or five of ten digits, or one kind of each of three classes of two kinds.
Poisoned, client 3 says that everything is class 0: what is to be forgotten leaves a trace.
"""
CONSENSUS = ("mean", "confidence", "variance")
_REQUEST = ForgetRequest(clients=("3",))
_METHOD = "redistill"


def run(  # noqa: PLR0913  # a parameter per option
    observer: Observer | None = None,
    *,
    data_root: str = "",
    cifar: str = "cifar10",
    cases: str = "",
    consensus: str = "",
    seeds: int = 3,
    rounds: int = 20,
    per_class: int = 3,
    side: int = 28,
    public_limit: int = 0,
    forget: bool = True,
    overrides: str = "",
) -> dict[str, Any]:
    """Return mean and standard deviation of each figure, by case and consensus, and of forgetting by case.

    Parameters
    ----------
    observer
        Told of each run.
    data_root
        Where torchvision's data sets lie (``data.root``).
    cifar
        CIFAR-10, by name or as ``npz:<file>``.
    cases, consensus
        Names of those to measure, with commas between them; empty: all.
    seeds
        Number of seeds, from 0.
    rounds
        Of training.
    per_class
        Private examples per client and class.
    side
        Pixels that digits and MNIST are scaled to.
    public_limit
        Public examples used; 0 for all.
    forget
        Whether client 3 is forgotten as well, from the runs with the first consensus.
    overrides
        Further keys of the run config, as ``section.key=value`` with a semicolon between them.
    """
    wanted, rules = chosen("cases", cases, CASES), chosen("consensus", consensus, dict.fromkeys(CONSENSUS))
    settings = {
        "rounds": rounds,
        "seeds": seeds,
        "per_class": per_class,
        "public_limit": public_limit,
        "overrides": overrides,
    }
    common = [
        "strategy.name=fedmd",
        "data.clients=10",
        "data.public-labels=own",
        f"data.root={data_root}",
        f"data.public-limit={public_limit}",
        f"data.per-class={per_class}",
        f"run.rounds={rounds}",
        f"run.evaluate-every={rounds}",
        *(key for key in overrides.split(";") if key),
    ]
    observer = observer or Quiet()
    observer.phase("fedmd", len(wanted) * len(rules) * seeds)
    results: dict[str, Any] = {"machine": machine(), "settings": settings, "cases": {}}
    for case in wanted:
        places = [f"data.size={side}"] if case.startswith("digits") else _cifar(cifar)
        found: dict[str, Any] = {}
        for rule in rules:
            keys = [*CASES[case], *places, *common, f"strategy.consensus={rule}"]
            wants_forgetting = forget and rule == rules[0]
            bound = f"strategy.upper-bound={'true' if rule == rules[0] else 'false'}"
            samples = []
            for seed in range(seeds):
                samples.append(_one([*keys, bound, f"run.seed={seed}"], wants_forgetting))
                observer.advance(f"{case}, {rule}, seed {seed}", samples[-1])
            found[rule] = _summary(samples)
        results["cases"][case] = found
    return results


def _cifar(place: str) -> list[str]:
    return [f"data.name={place}", f"data.public={place}"]


def _one(keys: Sequence[str], forget: bool) -> dict[str, float]:
    """Return the figures of one run, and of forgetting client 3 afterwards."""
    with tempfile.TemporaryDirectory() as home:
        config = RunConfig().with_overrides([*keys, f"run.home={home}"])
        session = Session.of(config)
        with session.local_grid() as grid:
            folder = train(config, None, grid)
            figures = _trained(folder, session)
            if forget:
                figures |= _forgotten(OpenedRun.of(folder, None), grid)
    return figures


def _trained(folder: RunFolder, session: Session) -> dict[str, float]:
    summary, data = folder.read_summary(), session.server_data
    final = summary["final"]
    aligned = session.config.strategy.own(FedMDSettings).alignment_size(
        len(data.public) if data.public is not None else 0
    )
    logits = aligned * data.num_groups * 4 * len(summary["clients"]) * summary["rounds"]
    described = sum(len(line["accepted"]) for line in folder.read_metrics())
    figures = {
        "baseline": final["baseline-accuracy"],
        "accuracy": final["test-accuracy"],
        "gain": final["collaboration-gain"],
        "upload_per_client_round": sum(m["bytes-up"] for m in folder.read_metrics()) / described,
        "upload_overhead_percent": 100 * (sum(m["bytes-up"] for m in folder.read_metrics()) / logits - 1),
        "seconds": summary["seconds"],
    }
    if "upper-bound" in final:
        figures |= {"bound": final["upper-bound"], "gap_to_bound": final["upper-bound"] - figures["accuracy"]}
    return figures


def _forgotten(opened: OpenedRun, grid: Any) -> dict[str, float]:
    """Return, by the start of `redistill`, its disparity and how many times faster than retraining it is."""
    figures: dict[str, float] = {}
    with opened.session.cohort(grid) as cohort:
        for start in ("transferred", "now"):
            settings = ForgetSettings.of(_METHOD, start=start)
            opened.forget(_REQUEST, _METHOD, settings, cohort)
            report = opened.audit(_REQUEST, [_METHOD], opened.session.config.audit, cohort)
            seconds = report.seconds_ratio(_METHOD)
            disparity = report.comparisons[_METHOD].disparity
            if seconds and disparity is not None:
                figures |= {f"{start}_disparity": disparity, f"{start}_times_faster": 1 / seconds}
        disparity = report.comparisons["before"].disparity
        if disparity is not None:
            figures["before_disparity"] = disparity
    return figures


def _summary(samples: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "mean": statistics.fmean(sample[name] for sample in samples),
            "std": statistics.stdev(sample[name] for sample in samples) if len(samples) > 1 else 0.0,
        }
        for name in samples[0]
    }
