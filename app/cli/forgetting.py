"""``lethe forget`` and ``lethe audit``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.cli.interrupts import interruptible
from app.config.run_config import RunConfig
from app.report import wording
from strategies.core.errors import BadInput

if TYPE_CHECKING:
    from strategies.runs.folder import RunFolder
    from unlearning.request import ForgetRequest

_AGAIN = "the run is not altered; give the same command again"


def forget(  # noqa: PLR0913, PLR0917  # a parameter per option
    run: options.Run,
    client: options.Clients = None,
    label: options.Classes = None,
    samples: options.Samples = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="See lethe methods; default: the best for this run.",
            autocompletion=options.methods_beginning,
        ),
    ] = "",
    prune: options.Prune = "",
    sparsity: options.Sparsity = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Measure the result, too; retrains without the data for that.")
    ] = False,
    after: options.After = "",
    purge: Annotated[
        bool, typer.Option("--purge", help="Erase the clients' updates from the log, too; for good.")
    ] = False,
    overrides: options.Overrides = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Remove clients, classes or examples from a run's model; the run itself is not altered."""
    home, others = options.split_home(overrides, home)
    folder = options.open_run(run, home)
    request = options.read_request(folder, client, label, samples)
    chosen = [*others, *([f"forget.method={method}"] if method else [])]
    chosen += options.pruning(prune, sparsity)
    config = resolved(folder, chosen, ("forget", "audit") if audit else ("forget",))
    from app import workflows
    from app.client.audit_answers import check_answers
    from strategies.runs.folder import RunFolder
    from unlearning.pruning import sparse_path

    if audit:
        check_answers(config)
    with interruptible(_AGAIN), output.observed() as observer:
        settings = workflows.choose_method(folder, request, config.forget, after)
        sparse = RunFolder(sparse_path(folder, settings))
        served = workflows.check_purge(sparse, request, settings, after) if purge else None
        if served:
            observer.note(f"{served} was there, made with these settings; it is kept as it is")
        name = served or workflows.forget(folder, request, settings, observer, after=after)
        if audit:
            workflows.audit(sparse, request, [settings.method], config.audit, observer, after=after)
        purged = workflows.purge(sparse, name, observer) if purge else []
    _finish_forgetting(sparse, name, purged, json)


def audit(  # noqa: PLR0913, PLR0917  # a parameter per option
    run: options.Run,
    client: options.Clients = None,
    label: options.Classes = None,
    samples: options.Samples = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="A method that was used; repeatable; default: all.",
            autocompletion=options.methods_beginning,
        ),
    ] = None,
    shadows: Annotated[
        int | None,
        typer.Option(
            "--shadows",
            metavar="PAIRS",
            help="Attack single examples with so many pairs of shadow models, at least 3; a verdict needs "
            "8, and 16 decide most cases.",
        ),
    ] = None,
    after: options.After = "",
    overrides: options.Overrides = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure how complete a forgetting is, against a model retrained without the data."""
    home, others = options.split_home(overrides, home)
    others = [*others, *([] if shadows is None else [f"audit.shadows={shadows}"])]
    folder = options.open_run(run, home)
    request = options.read_request(folder, client, label, samples)
    config = resolved(folder, others, ("audit",))
    methods = list(dict.fromkeys(method or _methods_used(folder, request, after)))
    from app import workflows
    from app.forgettings.folder import forgetting_name, read_audit
    from app.report.page import write_report

    with interruptible(_AGAIN), output.observed() as observer:
        workflows.audit(folder, request, methods, config.audit, observer, after=after)
    paths = {name: folder.forget_folder(forgetting_name(request, name, after)) for name in methods}
    audits = {name: found for name, path in paths.items() if (found := read_audit(path)) is not None}
    report = write_report(folder)
    if json:
        output.print_json({**output.paths(folder, report), "request": request.to_json(), "audits": audits})
        return
    for name, found in audits.items():
        output.print_line(f"{wording.subject(request.to_json())}, forgotten by {name}:")
        output.print_audit(found)
    output.print_line(f"report: {report}")


def resolved(folder: "RunFolder", overrides: Sequence[str], sections: Sequence[str]) -> RunConfig:
    """Return the run's config with the keys replaced that the command may set."""
    for override in overrides:
        if override.partition(".")[0].strip() not in sections:
            allowed = wording.listed(f"{section}.*" for section in sections)
            raise BadInput(f"--set {override}: a finished run keeps its config; allowed here: {allowed}")
    return RunConfig.resolve(folder.path / "config.toml", overrides)


def _methods_used(folder: "RunFolder", request: "ForgetRequest", after: str) -> list[str]:
    """Return the methods that served a request; retraining only if there is no other."""
    from app.forgettings.folder import read_result
    from app.forgettings.names import RESULT

    found = [read_result(path.parent) for path in sorted((folder.path / "forget").glob(f"*/{RESULT}"))]
    used = [
        str(result["method"])
        for result in found
        if result.get("request") == request.to_json() and result.get("after", "") == after
    ]
    if not used:
        raise BadInput(f"run '{folder.name}': {request.name} was not forgotten yet; use lethe forget first")
    return [name for name in used if name != "retrain"] or used


def _finish_forgetting(
    folder: "RunFolder", name: str, purged: Sequence[Mapping[str, Any]], json: bool
) -> None:
    from app.forgettings.folder import read_audit, read_result
    from app.report.page import write_report

    report, path = write_report(folder), folder.forget_folder(name)
    result, found = read_result(path), read_audit(path)
    if json:
        certificate = str(path / "certificate.json")
        answered: dict[str, Any] = {"forgetting": name, "result": result, "audit": found}
        answered |= {"certificate": certificate, "purged": list(purged)}
        output.print_json({**output.paths(folder, report), **answered})
        return
    _print_result(folder.name, result)
    if found is not None:
        output.print_audit(found)
    elif result["method"] != "retrain":
        output.print_line("not audited: how close it came to retraining is not known; --audit measures it")
    for log in purged:
        output.print_line(wording.purged(log))
    output.print_line(f"model: {path / 'model.safetensors'}")
    output.print_line(f"certificate: {path / 'certificate.json'}")
    output.print_line(f"report: {report}")


def _print_result(run: str, result: Mapping[str, Any]) -> None:
    traffic = result["traffic"]
    output.print_line(
        f"{wording.subject(result['request'])} of run {run}, forgotten by {result['method']} "
        f"in {wording.seconds(result['seconds'])} s with {wording.count(traffic['visits'], 'client visit')}"
    )
    for warning in result.get("warnings", ()):
        output.print_line(f"WARNING: {warning}")
    for note in result["notes"]:
        output.print_line(f"note: {note}")
