"""A report of every kind, made from runs by hand: what a browser test and a person look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.report.diagnosis import render_diagnosis
from app.report.page import write_report
from app.report.side_by_side import write_side_by_side
from app.report.triggered import TriggeredImage, write_triggered
from strategies.analytics.diagnosis import Diagnosis, Evidence, findings
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.layers.privacy.server import privacy_summary
from strategies.layers.privacy.settings import PrivacySettings
from strategies.runs.files import write_json
from tests.app.report.run_folders import (
    ATTACK,
    add_forgetting,
    add_log,
    add_rounds,
    finish,
    judged,
    new_run,
)

CLIENTS = [*map(str, range(11)), "hospital-of-the-holy-spirit"]
METHODS = ("subtract", "distill", "fast-distill", "federaser", "finetune", "l1-sparse", "ascent", "negate")


def forgotten(home: Path) -> Path:
    """Return a run with an attack, two audited forgettings, triggered images and faults."""
    folder = new_run(home, "a-run-with-a-name-that-is-rather-long-for-a-phone", ATTACK)
    add_rounds(folder, 6, **{"attack-success-rate": 61.0, "train-loss": 0.5})
    add_log(folder, CLIENTS)
    faults = [{"client": "3", "scope": "round 2", "reason": f"no answer in {i} s"} for i in range(5)]
    finish(folder, CLIENTS, faults=faults)
    path = add_forgetting(folder)
    pixels = numpy_generator(0, "kinds").normal(size=(8, 8)).astype(np.float32)
    images = [TriggeredImage(pixels, i % 10, {"before": 0, "after": 2, "retrain": 2}) for i in range(10)]
    write_triggered(path, images)
    add_forgetting(folder, "finetune")
    add_forgetting(folder, "subtract", audited=False)
    return write_report(folder)


def _spread(mean: float, std: float = 0.5) -> dict[str, float]:
    return {"mean": mean, "std": std}


def _figures(place: float) -> dict[str, Any]:
    rates = ("unlearning_accuracy", "mia_efficacy", "retain_accuracy", "test_accuracy", "attack_success_rate")
    found = {key: _spread(90.0 - 3 * i - place) for i, key in enumerate(rates)}
    found |= {f"{key}_gap": _spread(-place) for key in rates}
    found |= {
        "disparity": _spread(place),
        "seconds": _spread(0.1 + place),
        "seconds_ratio": _spread(place / 9),
    }
    found |= {key: _spread(1.5e6 * place) for key in ("bytes_up", "bytes_down", "log_bytes", "client_visits")}
    return found | {"parameter_distance": _spread(0.5), "worst_client_accuracy": _spread(80.0)}


def compared(home: Path) -> Path:
    """Return a run with eight methods compared over three seeds."""
    folder = new_run(home, "compared")
    add_rounds(folder)
    finish(folder)
    (folder.path / "compare").mkdir()
    document = {
        "request": {"kind": "client", "clients": ["3"], "classes": [], "samples": {}},
        "settings": {"prune": "none", "sparsity": 0.95},
        "seeds": [0, 1, 2],
        "notes": ["seed 0: a note"],
        "before": _figures(9.0),
        "retrain": _figures(0.0),
        "methods": {name: _figures(1.0 + i) for i, name in enumerate(METHODS)},
    }
    write_json(folder.path / "compare" / "client-3.json", document)
    return write_report(folder)


def private(home: Path) -> Path:
    """Return a run with differential privacy, in which budgets differ and one is spent."""
    folder = new_run(home, "private", ("privacy.unit=example", "privacy.epsilon=2"))
    epsilons = {i: 0.5 + 0.125 * place for place, i in enumerate(CLIENTS)}
    for number in range(1, 9):
        spent = {i: epsilon * number / 8 for i, epsilon in epsilons.items()}
        line = {"round": number, "test-accuracy": 50.0 + number, "test-loss": 2.0 / number}
        folder.append_metrics({**line, "epsilons": spent})
    settings = PrivacySettings(unit="example", epsilon=2.0, budgets="2=0")
    told = {
        "epsilons": epsilons,
        "noise": dict.fromkeys(epsilons, 1.1),
        "refusals": {"2": [4, "its privacy budget is 0: it takes no part"]},
        "unreported": {"1": 2},
    }
    finish(folder, CLIENTS, privacy=privacy_summary(settings, told, CLIENTS))
    return write_report(folder)


def _own_models(
    home: Path, name: str, figures: Callable[[int, int], dict[str, float]], **mean: float
) -> Path:
    folder = new_run(home, name, (f"strategy.name={name}",))
    for number in range(1, 6):
        clients = {i: figures(place, number) for place, i in enumerate(CLIENTS)}
        means = {key: value * number / 5 for key, value in mean.items()}
        folder.append_metrics({"round": number, **means, "clients": clients})
    finish(folder, CLIENTS, strategy=name, final=mean)
    return write_report(folder)


def personalised(home: Path) -> Path:
    """Return a run in which clients keep a model of their own besides the shared one."""

    def figures(place: int, number: int) -> dict[str, float]:
        return {"global-accuracy": 30.0 + place, "personal-accuracy": 70.0 + place + number}

    mean = {"test-accuracy": 31.5, "global-accuracy": 35.0, "personal-accuracy": 84.8}
    return _own_models(home, "ditto", figures, **mean, **{"global-worst": 30.0, "personal-worst": 76.0})


def without_common_model(home: Path) -> Path:
    """Return a run of FedMD, with what training on all data would give."""

    def figures(place: int, number: int) -> dict[str, float]:
        base = {"baseline-accuracy": 50.0 + place, "upper-bound": 95.0}
        return {**base, "accuracy": 60.0 + place + number}

    return _own_models(home, "fedmd", figures, **{"test-accuracy": 71.0, "collaboration-gain": 15.5})


def pruned(home: Path) -> Path:
    """Return a pruned run, which lies in the run that it came from."""
    outer = new_run(home, "outer")
    folder = new_run(outer.path / "pruned", "omp-0.95")
    write_json(
        folder.path / "pruning.json", {"prune": "omp", "sparsity": 0.95, "parameters": 1000, "kept": 50}
    )
    add_rounds(folder)
    add_log(folder)
    finish(folder)
    add_forgetting(folder, "finetune")
    return write_report(folder)


def evaluated(home: Path) -> Path:
    """Return a run judged on the server's data and on the clients', of which a round is kept."""
    folder = new_run(home, "evaluated", ("log.enabled=false",))
    add_rounds(folder, 6, **{"validation-accuracy": 44.0, "validation-loss": 0.75})
    groups = [{"group": i, "examples": 20, "score": 90.0 - i} for i in range(10)]
    counts = [[18 if i == j else (i * j) % 3 for j in range(10)] for i in range(10)]
    found = {"examples": 200, "headline": "accuracy", "higher-is-better": True, "groups": groups}
    found |= {"figures": {"accuracy": 85.5, "loss": 0.5}, "tables": {"confusion": counts}}
    clients = {i: {"examples": 20 + place, "accuracy": 80.0 + place} for place, i in enumerate(CLIENTS)}
    kept = {"keep": "best", "by": "validation-loss", "round": 4, "trained": 6, "best": 4, "value": 0.5}
    names = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Boot",
    ]
    finish(
        folder,
        CLIENTS,
        evaluations={"server": found, "clients": {**found, "clients": clients}},
        judged={**kept, "validation-examples": 90},
        data={"name": "fashion-mnist", "class-names": names},
        log=None,
    )
    return write_report(folder)


def side_by_side(home: Path) -> Path:
    """Return a page with six runs, two of which forgot, and one of which has a long name."""
    folders = []
    for place in range(6):
        name = "a-run-with-a-name-that-is-rather-long-for-a-phone" if place == 3 else f"run-{place}"
        folder = new_run(home, name, (f"run.seed={place}", f"train.learning-rate=0.0{place + 1}"))
        add_rounds(folder, 3 + place)
        finish(folder)
        if place < 2:
            judged(add_forgetting(folder))
        folders.append(folder)
    return write_side_by_side(folders, home / "page.html")


def unfinished(home: Path) -> Path:
    """Return a run that was interrupted, and of which little is known."""
    folder = new_run(home, "unfinished")
    add_rounds(folder, 1)
    return write_report(folder)


def diagnosed(home: Path) -> Path:
    """Return the page of a diagnosis of clients that differ."""
    generator = torch_generator(0, "kinds")

    counts = {i: [40 * (place % 3) + 5, 40, 20 * place] for place, i in enumerate(CLIENTS)}
    vectors = {i: torch.randn(20, generator=generator) + 0.5 for i in CLIENTS}
    seconds = {i: 0.5 + 0.25 * place**2 for place, i in enumerate(CLIENTS)}
    found = Diagnosis(
        findings(Evidence(counts, vectors, vectors, seconds)), ["client 3, diagnose: no answer"]
    )
    path = home / "diagnosis.html"
    path.write_text(render_diagnosis("Diagnosis before training", found), encoding="utf-8")
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "forgotten": forgotten,
    "compared": compared,
    "private": private,
    "personalised": personalised,
    "without-common-model": without_common_model,
    "pruned": pruned,
    "evaluated": evaluated,
    "side-by-side": side_by_side,
    "unfinished": unfinished,
    "diagnosed": diagnosed,
}
"""By name, what makes the page in a home and returns where it lies."""
