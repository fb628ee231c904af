"""Runs a command line and turns the outcome into an exit status and, on failure, one line on stderr.

Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted. An unforeseen error keeps its traceback.
"""

import gc
import os
import sys
from collections.abc import Sequence

import click
import typer

from app.cli.commands import app
from app.cli.interrupts import Interrupted
from app.report.wording import printable
from strategies.core.errors import BadInput, LetheError

_ALLOCATIONS = 10_000
"""How many new objects let the garbage collector look at the young ones; Python's 700 suit small programs."""
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """Run the command line of this process and exit."""
    # read when torch is first imported: threads that wait sleep, and keep no core from the other processes
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(_ALLOCATIONS)  # else importing torch alone looks at all that is there a dozen times
    status = run(sys.argv[1:])
    # else the interpreter's end looks for garbage in all that was imported, for half a second
    if "triton" not in sys.modules:  # whose bindings report what is frozen as leaked
        gc.freeze()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run a command line, given without the program's name, and return its exit status."""
    try:
        status = typer.main.get_command(app).main(list(arguments), prog_name="lethe", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "lethe"
        return _failed(f"{error.format_message()} (see {command} --help)", BAD_INPUT)
    except BadInput as error:
        return _failed(str(error), BAD_INPUT, getattr(error, "__notes__", ()))
    except Interrupted as error:
        return _failed(str(error), INTERRUPTED)
    except LetheError as error:
        return _failed(str(error), FAILED)
    return status if isinstance(status, int) else DONE


def _failed(message: str, status: int, notes: Sequence[str] = ()) -> int:
    for line in "\n".join(notes).splitlines():
        typer.echo("".join(c if c.isprintable() else "·" for c in line), err=True)
    typer.echo(f"lethe: {printable(message)}", err=True)
    return status
