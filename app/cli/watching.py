"""``lethe watch``."""

import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options, output
from strategies.core.errors import BadInput
from strategies.runs.home import MARKER, find, list_runs

_RUN = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: its name under the home, or the path of its folder; default: the latest.",
        autocompletion=options.runs_beginning,
    ),
]


def watch(
    run: _RUN = "",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Where; 0 takes a free one.")
    ] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Show a run in the browser while it is at work: a page on this machine, until Ctrl-C."""
    place = options.home_path(options.only_home("watch", overrides, home))
    folder = _found(run, place)
    from app.watching.serving import PageServer

    with PageServer(folder, port) as server:
        if json:
            output.print_json({"run": folder.name, "path": str(folder), "url": server.url})
        else:
            output.print_line(f"watching {folder.name}: {server.url} (Ctrl-C ends it, the run goes on)")
        if open_:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _found(run: str, home: Path) -> Path:
    """Return the folder of a run, without torch, which takes seconds."""
    path = find(run, home) if run else _latest(home)
    if not (path / MARKER).exists():
        raise BadInput(f"run '{run}': {path} is not the folder of a run, or the run has not begun yet")
    return path.absolute()


def _latest(home: Path) -> Path:
    found = [home / name for name in list_runs(home)]
    if not found:
        raise BadInput(f"no runs in {home}; lethe train or lethe demo makes one")
    return max(found, key=lambda path: (path / MARKER).stat().st_mtime)
