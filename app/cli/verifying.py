"""``lethe verify``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app import wording
from app.cli import options, output
from strategies.errors import LetheError


def verify(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="A certificate.json, or the folder that holds it.")
    ],
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            metavar="FILE.pem",
            help="The signer's public key, as it reached you; default: the run's own, where it is here.",
        ),
    ] = None,
    run: Annotated[
        str, typer.Option("--run", metavar="RUN", help="The run; default: that around the certificate.")
    ] = "",
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Check a certificate of forgetting: its signature, its signer, and that the run's files are the same."""
    from app.keys import read_public_key
    from app.verification import verify as checked

    signer = None if public_key is None else read_public_key(public_key)
    found = checked(certificate, signer, options.open_run(run, home) if run else None)
    statement = found.certificate.statement
    if json:
        checks = {check.name: {"status": check.status, "detail": check.detail} for check in found.checks}
        output.print_json({"valid": not found.failed, "checks": checks, "certificate": statement})
    else:
        for check in found.checks:
            said = ": ".join(filter(None, (check.status, check.detail)))
            output.print_line(f"{check.name + ':':<18}{said}")
    if found.failed:
        raise LetheError(f"{certificate}: not verified: {wording.listed(found.failed)}")
    if not json:
        _print_statement(statement)


def _print_statement(statement: Mapping[str, Any]) -> None:
    output.print_line(
        f"On {statement['time']}, {wording.subject(statement['request'])} of run {statement['run']} was "
        f"forgotten by {statement['method']['name']}."
    )
    for log in (statement["purged"] or {}).get("logs", ()):
        output.print_line(f"{wording.purged(log)}.")
    output.print_line("What this does not show:")
    for limit in statement["limits"]:
        output.print_line(f"- {limit}")
