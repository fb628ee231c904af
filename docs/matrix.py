"""What goes with what, found by running it: task × strategy × forgetting method, and options of a run.

``python -m docs.matrix`` trains and forgets in tiny federations and writes docs/matrix.md; with ``--check``
it says whether the page is stale. It returns 1 if anything neither works nor is refused before any work.
"""

import logging
import multiprocessing
import re
import sys
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from docs.matrix_runs import FAILED, REQUESTS, TASKS, WORKS, options, outcomes, strategies
from strategies.registry import PLAIN
from unlearning.methods import METHODS

PAGE = "docs/matrix.md"
HEAD = """# What goes with what

```sh
make generate    # runs it all and writes this page; python -m docs.matrix --check compares
```

Nothing here is written by hand. For each task, each strategy and each option, three clients with a few dozen
made examples train a tiny model for a round or two. Then every method forgets a client, a class and a few
examples; with the options, a client.

| sign | meaning |
|---|---|
| `+` | this worked |
| a number | this was refused before any work, with the [reason](#reasons) of that number |
| `+ 3 4` | a client, a class, examples, in this order; one sign stands for all three |

What is refused leaves nothing behind. Anything else is a bug: the command names it and ends with status 1.
`reprune` works on the run after `forget.prune = "omp"`; `flwr:FedAdam` stands for Flower's own strategies.
"""
Cells = Mapping[tuple[str, str], str]
"""What came of each (method, kind of request)."""
K = TypeVar("K")
V = TypeVar("V", bound=Hashable)
_WORKERS = 2


def measured() -> dict[str, dict[str, dict[str, Cells]]]:
    """Run everything; return what came of it, by part of the page, task and column."""
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, dict[str, Cells]]] = {}
    with ProcessPoolExecutor(_WORKERS, mp_context=spawn, initializer=_quiet) as pool:
        waiting = [
            (part, task, column, pool.submit(outcomes, task, keys, kinds))
            for part, (columns, kinds) in parts().items()
            for task in TASKS
            for column, keys in columns.items()
        ]
        for part, task, column, cells in waiting:
            found.setdefault(part, {}).setdefault(task, {})[column] = cells.result()
    return found


def parts() -> dict[str, tuple[Mapping[str, str], tuple[str, ...]]]:
    """Return the parts of the page by title: the keys of each column, and the kinds of request."""
    plain = strategies()[PLAIN]
    with_plain = {name: f"{plain} {keys}" for name, keys in options().items()}
    return {
        "Strategies": (strategies(), tuple(REQUESTS)),
        f"Options, with `{PLAIN}`": (with_plain, tuple(REQUESTS)[:1]),
    }


def _quiet() -> None:
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)


def failures(found: Mapping[str, Mapping[str, Mapping[str, Cells]]]) -> list[str]:
    """Return a line for each cell that neither works nor was refused before any work."""
    return [
        f"{task}, {column}, {method}, {kind}: {outcome}"
        for tasks in found.values()
        for task, columns in tasks.items()
        for column, cells in columns.items()
        for (method, kind), outcome in cells.items()
        if outcome.startswith(FAILED)
    ]


def general(outcome: str, task: str, column: str, method: str) -> str:
    """Return a reason with placeholders for the names in it, so that equal reasons are one.

    Examples
    --------
    >>> general("retrain does not apply to gossip: why", "regression", "gossip", "retrain")
    '*method* does not apply to *strategy*: why'
    """
    first = column.partition(" ")[0]
    strategy = first if first in strategies() else PLAIN
    text = outcome.replace(f"({task})", "(*task*)")
    for name, placeholder in ((method, "*method*"), (strategy, "*strategy*")):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", placeholder, text)
    text = re.sub(r"\ba (client|class|sample) request\b", "a *kind* request", text)
    return re.sub(r'privacy\.unit = "[\w-]+"', "privacy.unit = *unit*", text)


class Reasons:
    """The refusals of the page, numbered in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def sign(self, outcome: str) -> str:
        """Return the sign of an outcome: ``+``, or the number of its reason."""
        return "+" if outcome == WORKS else str(self._numbers.setdefault(outcome, len(self._numbers) + 1))

    def lines(self) -> list[str]:
        """Return the reasons as a list."""
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]


def grouped(things: Mapping[K, V]) -> dict[V, list[K]]:
    """Return the keys of each value."""
    found: dict[V, list[K]] = {}
    for key, value in things.items():
        found.setdefault(value, []).append(key)
    return found


def table(columns: Mapping[str, Cells], task: str, reasons: Reasons) -> list[str]:
    """Return a table of methods and columns; those with equal signs are together."""
    signs = {
        column: tuple(_cell(cells, task, column, method, reasons) for method in METHODS)
        for column, cells in columns.items()
    }
    groups = grouped(signs)
    rows = {method: tuple(group[i] for group in groups) for i, method in enumerate(METHODS)}
    head = ["", *(_names(names, "<br>") for names in groups.values())]
    body = [[_names(methods, ", "), *cells] for cells, methods in grouped(rows).items()]
    return [_row(head), _row(["---"] * len(head)), *map(_row, body)]


def _cell(cells: Cells, task: str, column: str, method: str, reasons: Reasons) -> str:
    given = [outcome for (of, _), outcome in cells.items() if of == method]
    signs = [reasons.sign(general(outcome, task, column, method)) for outcome in given]
    return signs[0] if len(set(signs)) == 1 else " ".join(signs)


def _names(names: Iterable[str], between: str) -> str:
    return between.join(f"`{name}`" for name in names)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(found: Mapping[str, Mapping[str, Mapping[str, Cells]]]) -> str:
    """Return the page."""
    reasons = Reasons()
    lines = [HEAD]
    for title, columns_of in found.items():
        lines += [f"## {title}", ""]
        tables = {task: tuple(table(columns, task, reasons)) for task, columns in columns_of.items()}
        for rows, tasks in grouped(tables).items():
            lines += [f"### {', '.join(tasks)}", "", *rows, ""]
    return "\n".join([*lines, "## Reasons", "", *reasons.lines(), ""])


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` say if it is stale; return 1 if it is or something failed."""
    found, path = measured(), Path.cwd() / PAGE
    text, wrong = page(found), failures(found)
    if "--check" not in arguments:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        wrong.append(f"{PAGE}: stale; run make generate")
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
