"""What clients with different models gain from each other, and what forgetting one of them takes.

The protocol of the paper (Li, Wang, arXiv 1910.03581) on data at hand: ten clients with a few private
examples per class learn a public data set first. Measured are the accuracy before and after the rounds, that
of the same models trained on all private data together, the upload, and `redistill` against retraining.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.workflows.observer import Observer
from app.workflows.opened import OpenedRun
from app.workflows.session import Session
from app.workflows.training import train
from benchmarks.figures import each_figure
from benchmarks.options import DataOptions, SeedsOptions, chosen, separate_keys
from benchmarks.rounds import local_clients
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


class Options(DataOptions, SeedsOptions):
    """Options of the benchmark."""

    cifar: str = "cifar10"
    """CIFAR-10, by name or as ``npz:<file>``."""
    cases: str = ""
    consensus: str = ""
    """Names of those to measure, with commas between them; empty: all."""
    rounds: int = 20
    """Of training."""
    per_class: int = 3
    """Private examples per client and class."""
    side: int = 28
    """Pixels that digits and MNIST are scaled to."""
    public_limit: int = 0
    """Public examples used; 0 for all."""
    forget: bool = True
    """Whether client 3 is forgotten as well, from the runs with the first consensus."""
    overrides: str = ""
    """Further keys of the run config, as ``section.key=value`` with a semicolon between them."""

    def keys(self, case: str) -> list[str]:
        """Return what all runs of a case have in common, as keys of the run config."""
        cifar = (f"data.name={self.cifar}", f"data.public={self.cifar}")
        return [
            *CASES[case],
            *((f"data.size={self.side}",) if case.startswith("digits") else cifar),
            "strategy.name=fedmd",
            "data.clients=10",
            "data.public-labels=own",
            f"data.root={self.data_root}",
            f"data.public-limit={self.public_limit}",
            f"data.per-class={self.per_class}",
            f"run.rounds={self.rounds}",
            f"run.evaluate-every={self.rounds}",
            *separate_keys(self.overrides),
        ]


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return mean and standard deviation of each figure, by case and consensus, and of forgetting by case."""
    wanted = chosen("cases", options.cases, CASES)
    rules = chosen("consensus", options.consensus, dict.fromkeys(CONSENSUS))
    observer.phase("fedmd", len(wanted) * len(rules) * options.seeds)
    results: dict[str, dict[str, Any]] = {case: {} for case in wanted}
    for case in wanted:
        for rule in rules:
            first = rule == rules[0]
            bound = f"strategy.upper-bound={str(first).lower()}"
            keys = [*options.keys(case), f"strategy.consensus={rule}", bound]
            samples = []
            for seed in range(options.seeds):
                samples.append(_one([*keys, f"run.seed={seed}"], options.forget and first))
                observer.advance(f"{case}, {rule}, seed {seed}", samples[-1])
            results[case][rule] = each_figure(samples)
    settings = options.settings("rounds", "seeds", "per_class", "public_limit", "overrides")
    return {"settings": settings, "cases": results}


def _one(keys: Sequence[str], forget: bool) -> dict[str, float]:
    """Return the figures of one run, and of forgetting client 3 afterwards."""
    with local_clients(keys) as (session, grid):
        folder = train(session.config, None, grid)
        figures = _trained(folder, session)
        if forget:
            figures |= _forgotten(OpenedRun.of(folder, None), grid)
    return figures


def _trained(folder: RunFolder, session: Session) -> dict[str, float]:
    summary, lines, data = folder.read_summary(), folder.read_metrics(), session.server_data
    final = summary["final"]
    num_public = 0 if data.public is None else len(data.public)
    aligned = session.config.strategy.own(FedMDSettings).alignment_size(num_public)
    logits = aligned * data.num_groups * 4 * len(summary["clients"]) * summary["rounds"]
    uploaded = sum(line["bytes-up"] for line in lines)
    figures = {
        "baseline": final["baseline-accuracy"],
        "accuracy": final["test-accuracy"],
        "gain": final["collaboration-gain"],
        "upload_per_client_round": uploaded / sum(len(line["accepted"]) for line in lines),
        "upload_overhead_percent": 100 * (uploaded / logits - 1),
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
