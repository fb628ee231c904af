"""``lethe executor``."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from strategies.core.errors import BadInput


def executor(
    port: Annotated[
        int,
        typer.Option("--port", metavar="PORT", min=1, max=65535, help="As flower-supernode --port has it."),
    ] = 9094,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="SHA256", help="Run this bundle and no other that is not allowed; repeatable."
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="The node's policy; executor.bundles allows bundles."),
    ] = None,
) -> None:
    """Run the ClientApps of a SuperNode that was started with --isolation process, without delay."""
    from app.client.policy import is_sum
    from app.deployment.bundles import Allowed
    from app.deployment.executor import serve

    for bundle in allow or ():
        if not is_sum(bundle):
            raise BadInput(
                f"--allow: given {bundle!r}, allowed 64 hexadecimal digits, as sha256sum prints them"
            )
    allowed = Allowed.of(allow or [], policy)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: signals.append(received))
    serve(port, lambda: bool(signals), allowed)
