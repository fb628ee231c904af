"""``lethe list``, ``lethe show`` and ``lethe diff``."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from app.cli import options, output
from app.report import wording
from strategies.core.conditions import shown

_RUN_FIGURES = 8


def _kinds_beginning(incomplete: str) -> list[str]:
    from app.config.catalogue import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def listing(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="strategies, models, data, methods or tasks.",
            autocompletion=_kinds_beginning,
        ),
    ],
    json: options.Json = False,
) -> None:
    """List what a run config can name, with one line each and the page that tells more."""
    from app.config.catalogue import entries

    found = entries(kind)
    if json:
        output.print_json({kind: [asdict(entry) for entry in found]})
        return
    output.print_table(["name", "what it is", "more"], [[e.name, e.summary, e.page] for e in found])


def show(
    place: Annotated[
        str,
        typer.Argument(
            metavar="RUN[/forget/NAME]",
            help="A run, or a forgetting in it.",
            autocompletion=options.places_beginning,
        ),
    ],
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Show a run on one screen: its config, data, figures and forgettings, and where its files are."""
    home = options.only_home("show", overrides, home)
    from app.forgettings.names import parsed_place
    from app.workflows.showing import forgetting_on_a_screen, run_on_a_screen

    run, forgetting = parsed_place(place)
    folder = options.open_run(run, home)
    if forgetting:
        found = {"run": folder.name, **forgetting_on_a_screen(folder, forgetting)}
    else:
        found = run_on_a_screen(folder)
    if json:
        output.print_json(found)
    elif forgetting:
        _print_forgetting(found)
    else:
        _print_lines(_run_lines(found))


def diff(
    first: options.Run,
    second: Annotated[
        str, typer.Argument(metavar="RUN", help="Another run.", autocompletion=options.runs_beginning)
    ],
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Show what differs between two runs: config, data, code, and their figures side by side."""
    home = options.only_home("diff", overrides, home)
    folders = options.open_run(first, home), options.open_run(second, home)
    from app.workflows.showing import differences

    found = differences(*folders)
    if json:
        output.print_json(found)
        return
    names = [f"{name} ({n})" for n, name in enumerate(found["runs"], 1)]
    rows = [
        [key, *map(_value, pair)] for part in ("config", "data", "code") for key, pair in found[part].items()
    ]
    if rows:
        output.print_table(["differs", *names], rows)
    else:
        output.print_line("config, data and code are the same")
    figures = [
        [key, *(_figure(each[which]) for which in ("first", "second", "difference"))]
        for key, each in found["figures"].items()
    ]
    if figures:
        output.print_table(["figure", *names, "difference"], figures, right=[*names, "difference"])


def _run_lines(found: Mapping[str, Any]) -> Iterator[str]:
    about = [found.get("strategy"), f"{found['rounds']} rounds" if "rounds" in found else ""]
    begun = [f"begun {found['created']}"] if "created" in found else []
    version = [f"Lethe {found['version']}"] if found["version"] else []
    yield f"{found['name']}: {', '.join([output.run_state(found), *filter(None, about), *begun, *version])}"
    yield from _section("config", (f"{key} = {shown(value)}" for key, value in found["config"].items()))
    if found["data"]:
        yield "data: " + ", ".join(f"{key} {value}" for key, value in found["data"].items())
    figures = list(found["figures"].items())[:_RUN_FIGURES]
    if figures:
        yield "figures: " + ", ".join(f"{key} {_figure(value)}" for key, value in figures)
    if judged := found["judged"]:
        yield f"model: {wording.kept_round(judged)}"
    if privacy := found["privacy"]:
        yield f"privacy: {wording.private(privacy)}"
    yield from _section("forgettings", map(_forgetting_line, found["forgettings"]))
    if found["pruned"]:
        yield "pruned: " + ", ".join(f"{found['name']}/pruned/{name}" for name in found["pruned"])
    yield from _family(found)
    yield from _section("files", (f"{what}: {path}" for what, path in found["files"].items()))


def _family(found: Mapping[str, Any]) -> Iterator[str]:
    if parent := found["parent"]:
        yield f"parent: {_how(parent['how'])} {_place(parent)} after round {parent['rounds']}"
    if children := found["children"]:
        yield "children: " + ", ".join(f"{each['run']} ({_how(each['how'])} it)" for each in children)


def _how(how: str) -> str:
    return "went on from" if how == "continued" else "began with the weights of"


def _place(parent: Mapping[str, Any]) -> str:
    return "/forget/".join(filter(None, (parent["run"], parent["forgetting"])))


def _forgetting_line(found: Mapping[str, Any]) -> str:
    if not found["complete"]:
        return f"{found['name']}: not complete; give the same lethe forget again"
    verdict = (wording.verdict(found["audit"]) or "no verdict") if found["audit"] else "not audited"
    return f"{found['name']}: {wording.subject(found['request'])} by {found['method']}; {verdict}"


def _print_forgetting(found: Mapping[str, Any]) -> None:
    output.print_line(f"run {found['run']}, {_forgetting_line(found)}")
    if not found["complete"]:
        return
    if found["after"]:
        output.print_line(f"after: {found['after']}")
    output.print_line(f"seconds: {wording.seconds(found['seconds'])}")
    for note in found["notes"]:
        output.print_line(f"note: {note}")
    if found["audit"]:
        output.print_audit(found["audit"])
    _print_lines(_section("files", (f"{what}: {path}" for what, path in found["files"].items())))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        output.print_line(line)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    listed = list(lines)
    if listed:
        yield f"{title}:"
        yield from (f"  {line}" for line in listed)


def _figure(value: float | None) -> str:
    return wording.MISSING if value is None else f"{value:.4g}"


def _value(value: Any) -> str:
    return wording.MISSING if value is None else shown(value)
