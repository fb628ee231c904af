"""The options that several commands share, and the functions that read them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.config.run_config import RunConfig, keys_beginning
from app.config.settings import RunSettings
from strategies.core.errors import BadInput, LetheError
from strategies.runs.files import read_json
from strategies.runs.folder import NODES
from strategies.runs.home import folders_in, list_runs
from unlearning.registry import names

_HOME = "run.home"

if TYPE_CHECKING:
    from strategies.runs.folder import RunFolder
    from unlearning.request import ForgetRequest


def runs_beginning(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the runs that begin with a text, for the shell to choose from."""
    return [name for name in list_runs(_home_in(context)) if name.startswith(incomplete)]


def places_beginning(context: typer.Context, incomplete: str) -> list[str]:
    """Return the runs, or the forgettings of the run that is named, that begin with a text."""
    run, inside, _ = incomplete.partition("/")
    if not inside:
        return runs_beginning(context, incomplete)
    found = (f"{run}/forget/{each}" for each in folders_in(_home_in(context) / run / "forget"))
    return [place for place in found if place.startswith(incomplete)]


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Return what completes an option that takes one of these words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def _clients_beginning(context: typer.Context, incomplete: str) -> list[str]:
    return [client for client in _known_clients(context) if client.startswith(incomplete)]


def _known_clients(context: typer.Context) -> list[str]:
    """Return the client-ids of the run that stands on the command line already."""
    path = _home_in(context) / _run_in(context) / NODES
    try:
        return list(read_json(path)) if path.exists() else []
    except LetheError:
        return []  # a shell that asks has no use for a message; the command will say it


def _forgettings_beginning(context: typer.Context, incomplete: str) -> list[str]:
    place = _home_in(context) / _run_in(context) / "forget"
    return [name for name in folders_in(place) if name.startswith(incomplete)]


def methods_beginning(incomplete: str) -> list[str]:
    """Return the names of the forgetting methods that begin with a text."""
    return [name for name in names() if name.startswith(incomplete)]


def _run_in(context: typer.Context) -> str:
    """Return the run that stands on the command line; click leaves it over where an option is incomplete."""
    return str(context.params.get("run") or next(iter(context.args), ""))


def _home_in(context: typer.Context) -> Path:
    return home_path(context.params.get("home"))


def _keys_beginning(incomplete: str) -> list[str]:
    return [f"{key}=" for key in keys_beginning(incomplete)]


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: its name under the home, or the path of its folder.",
        autocompletion=runs_beginning,
    ),
]
Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN…",
        help="One run or several: names under the home, or paths of folders.",
        autocompletion=runs_beginning,
    ),
]
Home = Annotated[
    Path | None, typer.Option("--home", metavar="FOLDER", help="Where the run folders lie (run.home).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Set a key of the run config; repeatable.",
        autocompletion=_keys_beginning,
    ),
]
HomeOverride = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="run.home=FOLDER", help="The same as --home, as other commands take it."),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Run config to start from.")
]
Clients = Annotated[
    list[str] | None,
    typer.Option(
        "--client",
        metavar="ID",
        help="A client to forget; repeatable.",
        autocompletion=_clients_beginning,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="LABEL", help="A class to forget, by label or name; repeatable."),
]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        metavar="FILE.json",
        help="Examples to forget: for each client-id a list of positions in its data.",
    ),
]
After = Annotated[
    str,
    typer.Option(
        "--after",
        metavar="NAME",
        help="An earlier forgetting, such as client-3-distill, to go on from.",
        autocompletion=_forgettings_beginning,
    ),
]
Prune = Annotated[
    str,
    typer.Option("--prune", metavar="HOW", help="Prune first: omp, synflow or imp; default: the run's own."),
]
Sparsity = Annotated[
    float | None,
    typer.Option("--sparsity", metavar="SHARE", help="Share of the weights to prune (forget.sparsity)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")]


def _set_verbosity(verbose: bool) -> bool:
    # Flower sets the level of its logger when it is imported, which is after this; a filter stays
    if not verbose:
        logging.getLogger("flwr").addFilter(_only_errors)
    return verbose


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbosity, help="Show Flower's own log as well.")
]


def home_path(home: Path | None) -> Path:
    """Return the folder of the runs: the one given, or the default."""
    return (RunSettings() if home is None else RunSettings(home=str(home))).home_path


def split_home(overrides: Sequence[str] | None, home: Path | None) -> tuple[Path | None, list[str]]:
    """Return the folder of the runs as ``--home`` or ``--set run.home`` names it, and the other overrides.

    Raises
    ------
    BadInput
        If both are given and differ.
    """
    ours = [text for text in overrides or () if text.partition("=")[0].strip() == _HOME]
    others = [text for text in overrides or () if text not in ours]
    if not ours:
        return home, others
    named = Path(RunConfig.resolve(None, ours).run.home)
    if home is not None and home != named:
        raise BadInput(f"--home {home} and --set {ours[-1]}: give one of them")
    return named, others


def only_home(command: str, overrides: Sequence[str] | None, home: Path | None) -> Path | None:
    """Return the folder of the runs, for a command that reads no other key of the run config.

    Raises
    ------
    BadInput
        If another key is given.
    """
    place, others = split_home(overrides, home)
    if others:
        raise BadInput(f"--set {others[0]}: lethe {command} reads {_HOME} only")
    return place


def open_run(run: str, home: Path | None) -> "RunFolder":
    """Return the run that was named.

    Raises
    ------
    BadInput
        If there is none; the message lists some that there are.
    RunCorrupt
        If its folder is damaged.
    """
    from strategies.runs.folder import RunFolder

    return RunFolder.open(run, home_path(home))


def read_request(
    folder: "RunFolder", clients: Sequence[str] | None, classes: Sequence[str] | None, samples: Path | None
) -> "ForgetRequest":
    """Return the request that the options make up for a run.

    Raises
    ------
    BadInput
        If none or several kinds are given, or the file cannot be used.
    """
    from unlearning.request import ForgetRequest, read_samples

    if [bool(clients), bool(classes), samples is not None].count(True) != 1:
        raise BadInput("what to forget: give --client, --class or --samples, exactly one kind of them")
    read = {} if samples is None else read_samples(samples)
    if not classes:
        return ForgetRequest(tuple(clients or ()), samples=read)
    from app.data.record import classes_in

    numbers, names = classes_in(folder, classes)
    return ForgetRequest(classes=numbers, class_names=names)


def pruning(prune: str, sparsity: float | None) -> list[str]:
    """Return the overrides of the run config that ``--prune`` and ``--sparsity`` stand for."""
    return [
        *([f"forget.prune={prune}"] if prune else []),
        *([f"forget.sparsity={sparsity}"] if sparsity is not None else []),
    ]
