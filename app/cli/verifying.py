"""``lethe verify``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.report import wording
from strategies.core.errors import LetheError

if TYPE_CHECKING:
    from app.forgettings.verify import Check

_LABEL = 18
"""Characters of a check's name at least, so that what is said of it stands in one column."""


def verify(
    certificate: Annotated[
        Path,
        typer.Argument(
            metavar="CERTIFICATE|RUN",
            help="A certificate.json, the folder that holds it, or a run, of which everything is checked.",
        ),
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
    head: Annotated[
        str,
        typer.Option(
            "--head", metavar="SHA256", help="Of a run: what its update log must hash to, as noted elsewhere."
        ),
    ] = "",
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Check a certificate of forgetting, or a whole run.

    Of a certificate: its signature, its signer, and that the run's files are the same. Of a run: its files,
    the hash chain of its update log, and all its certificates.
    """
    home = options.only_home("verify", overrides, home)
    if not certificate.is_file() and not (certificate / "certificate.json").exists():
        _verify_run(str(certificate), head, home, as_json=json)
        return
    from app.forgettings.signing_key import read_public_key
    from app.forgettings.verify import verify as checked

    signer = None if public_key is None else read_public_key(public_key)
    found = checked(certificate, signer, options.open_run(run, home) if run else None)
    statement = found.certificate.statement
    if json:
        document = {"valid": not found.failed, "checks": _as_json(found.checks), "certificate": statement}
        output.print_json(document)
    else:
        _print_checks(found.checks)
    if found.failed:
        raise LetheError(f"{certificate}: not verified: {wording.listed(found.failed)}")
    if not json:
        _print_statement(statement)


def _verify_run(run: str, head: str, home: Path | None, *, as_json: bool) -> None:
    from app.forgettings.verify_run import verify_run

    folder = options.open_run(run, home)
    checks = verify_run(folder, head)
    failed = [check.name for check in checks if check.status == "failed"]
    if as_json:
        output.print_json({"valid": not failed, "run": folder.name, "checks": _as_json(checks)})
    else:
        _print_checks(checks)
    if failed:
        raise LetheError(f"run '{folder.name}': not verified: {wording.listed(failed)}")


def _as_json(checks: "Sequence[Check]") -> dict[str, dict[str, str]]:
    return {check.name: {"status": check.status, "detail": check.detail} for check in checks}


def _print_checks(checks: "Sequence[Check]") -> None:
    width = max([_LABEL, *(len(check.name) + 3 for check in checks)])
    for check in checks:
        said = ": ".join(filter(None, (check.status, check.detail)))
        output.print_line(f"{check.name + ':':<{width}}{said}")


def _print_statement(statement: Mapping[str, Any]) -> None:
    output.print_line(
        f"On {statement['time']}, {wording.subject(statement['request'])} of run {statement['run']} was "
        f"forgotten by {statement['method']['name']}."
    )
    for log in (statement["purged"] or {}).get("logs", ()):
        output.print_line(f"{wording.purged(log)}.")
    if verdict := wording.verdict(statement["audit"] or {}):
        output.print_line(f"Verdict of the audit: {verdict}.")
    output.print_line("What this does not show:")
    for limit in statement["limits"]:
        output.print_line(f"- {limit}")
