"""``lethe executor``."""

import signal
from typing import Annotated

import typer


def executor(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="As flower-supernode --port has it.")
    ] = 9094,
) -> None:
    """Run the ClientApps of a SuperNode that was started with --isolation process, without delay."""
    from app.executor import serve

    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: told.append(received))
    serve(port, lambda: bool(told))
