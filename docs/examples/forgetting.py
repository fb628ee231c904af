"""What the examples share: options, forgetting a client by several methods, and tables."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import lethe

COLUMNS = ("model", "TA", "RA", "UA", "distance")
"""Mean score on test, remaining and forgotten data (100 minus it), and the mean distance to retraining."""
_MEASURED = ("test_accuracy", "retain_accuracy", "unlearning_accuracy")


@dataclass(frozen=True)
class Options:
    """What an example was started with.

    Parameters
    ----------
    small
        Whether to train a little only, as a test does.
    home
        Folder of the runs.
    """

    small: bool
    home: Path

    @staticmethod
    def read(what: str) -> "Options":
        """Return the options of the command line."""
        parser = argparse.ArgumentParser(description=what)
        parser.add_argument("--small", action="store_true", help="train a little only")
        parser.add_argument("--home", type=Path, default=None, help="folder of the runs")
        given = parser.parse_args()
        return Options(given.small, given.home or Path(mkdtemp(prefix="lethe-example-")))

    def config(self, **keys: object) -> dict[str, object]:
        """Return a run config; ``train__learning_rate`` is the key ``train.learning-rate``."""
        named = {key.replace("__", ".").replace("_", "-"): value for key, value in keys.items()}
        places = {"run.home": str(self.home), "run.certificate-key": str(self.home / "certificate.pem")}
        return {**places, **named}


def forget_by(run: lethe.Run, client: str, methods: Sequence[str]) -> list[list[str]]:
    """Forget a client by each method, audit it, and return a row of `COLUMNS` for each model."""
    rows: list[list[str]] = []
    for method in methods:
        audit = run.forget(client=client, method=method).audit()
        verdict = audit["verdict"]
        distances = {"before": verdict["before"], "after": verdict["disparity"]}
        shown = {"after": method} if rows else {"before": "before", "after": method}
        rows += [_row(name, audit[model], distances[model]) for model, name in shown.items()]
    rows.append(_row("retrained", audit["retrain"], 0.0))
    rows.append(["second retraining", *[""] * (len(_MEASURED)), f"{verdict['floor']:.2f}"])
    return rows


def _row(name: str, measured: Mapping[str, float], distance: float) -> list[str]:
    return [name, *(f"{measured[key]:.1f}" for key in _MEASURED), f"{distance:.2f}"]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells))  # noqa: T201
