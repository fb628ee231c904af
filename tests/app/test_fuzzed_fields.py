"""Files of a run in which one field is another: of a wrong type, missing, negative, huge, or not finite.

Each file is well formed, and hashes and signatures in it are right where whoever wrote it could make them.
Every reader of it reads it, or says in one clear error what is wrong. As many cases as in
`tests.test_fuzzing`.
"""

import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, strategies as st

from app.cli import output
from app.cli.forgetting import _print_result
from app.config.run_config import RunConfig
from app.forgettings.certify import certify
from app.forgettings.folder import read_audit, read_forgetting, read_result
from app.forgettings.names import AUDIT, CERTIFICATE, RESULT
from app.forgettings.verify import verify
from app.forgettings.verify_run import verify_run
from app.report.page import render
from app.report.reading import read_run
from app.workflows import list_runs
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from strategies.core.errors import LetheError
from strategies.runs.files import write_json
from strategies.runs.folder import SUMMARY, RunFolder
from strategies.runs.home import MARKER
from tests.app.conftest import CLIENT_2
from tests.app.report.run_folders import add_audit
from tests.app.report.test_comparison_tables import comparison
from tests.test_fuzzing import FUZZED
from unlearning import certificate
from unlearning.request import read_samples

ANSWER = "client-2-subtract"
COMPARISON = "compare/client-3.json"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DEEP, DIGITS, HUGE = "@deep", "@digits", "@huge"
"""Stand for what `json.dumps` does not write."""
_RAW = {DEEP: "[" * 9000 + "]" * 9000, DIGITS: "9" * 5000, HUGE: "1e999"}
ODD: Sequence[Any] = (
    *(None, True, False, 0, -1, 3, 2**70, -1.5, 1e308, float("nan"), float("inf"), HUGE, DIGITS, DEEP),
    *("", "a", "../../x", "\x00", "\ud800", "x" * 3000, "2", "nan"),
    *([], [[]], [None], [1], ["a", 1], {}, {"a": 1}, {"": None}, {"2": []}),
)
Change = tuple[float, str, Any]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["replace", "delete", "add"]), st.sampled_from(ODD)),
    min_size=1,
    max_size=2,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container and key in a document, those near its root first."""
    found, last = [], [value]
    while last:
        inner = [(each, key) for each in last for key in _keys(each)]
        found += inner
        last = [each[key] for each, key in inner]
    return found


def _keys(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()


def changed(document: Any, changes: Sequence[Change]) -> Any:
    """Return a copy of a document with some of its fields replaced, deleted or added."""
    whole = [copy.deepcopy(document)]
    for where, action, odd in changes:
        found = places(whole)
        container, key = found[min(int(where**3 * len(found)), len(found) - 1)]  # Mostly one near the root
        if action == "delete" and container is not whole:
            del container[key]
        elif action == "add" and isinstance(container, dict):
            container["2"] = copy.deepcopy(odd)
        elif action == "add" and container is not whole:
            container.append(copy.deepcopy(odd))
        else:
            container[key] = copy.deepcopy(odd)
    return whole[0]


def text_of(document: Any) -> str:
    text = json.dumps(document)
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


Read = Callable[[RunFolder], object]


def trained(folder: RunFolder) -> object:
    return open_trained_run(folder, open_session(folder))


def listed(folder: RunFolder) -> object:
    return list_runs(folder.path.parent)


def answered(folder: RunFolder) -> object:
    return read_forgetting(folder, ANSWER).seconds


def reported(folder: RunFolder) -> object:
    return render(read_run(folder))


def certified(folder: RunFolder) -> object:
    path = folder.path / "forget" / ANSWER / CERTIFICATE
    whole = path.read_bytes()
    certify(folder, ANSWER, KEY)
    return path.write_bytes(whole)


def printed(folder: RunFolder) -> object:
    path = folder.path / "forget" / ANSWER
    result, audit = read_result(path), read_audit(path)
    assert audit is not None
    output.print_json({"result": result, "audit": audit})
    output.print_audit(audit)
    return _print_result(folder.name, result)


def opened(folder: RunFolder) -> object:
    return RunFolder.open(folder.path).run_id


READS: Mapping[str, tuple[str, Read]] = {
    "summary, for the list": (SUMMARY, listed),
    "summary, for the checks": (SUMMARY, verify_run),
    "summary, for a forgetting": (SUMMARY, trained),
    "metrics, for the report": ("metrics.jsonl", reported),
    "summary, for the report": (SUMMARY, reported),
    "result, for the report": (f"forget/{ANSWER}/{RESULT}", reported),
    "audit, for the report": (f"forget/{ANSWER}/{AUDIT}", reported),
    "comparison, for the report": (COMPARISON, reported),
    "result, for a certificate": (f"forget/{ANSWER}/{RESULT}", certified),
    "audit, for a certificate": (f"forget/{ANSWER}/{AUDIT}", certified),
    "result, for the terminal": (f"forget/{ANSWER}/{RESULT}", printed),
    "audit, for the terminal": (f"forget/{ANSWER}/{AUDIT}", printed),
    "marker": (MARKER, opened),
    "answer": (f"forget/{ANSWER}/{RESULT}", answered),
    "samples": ("samples.json", lambda folder: read_samples(folder.path / "samples.json")),
}


@pytest.fixture(scope="module")
def run(_small_run: RunFolder, memory_home: Path) -> RunFolder:
    """Return a copy of the small run that is the only one in its home."""
    home = memory_home / "fuzzed"
    folder = RunFolder(Path(shutil.copytree(_small_run.path, home / "small")))
    (folder.path / "samples.json").write_text('{"2": [0, 5], "ward": [1]}')
    (folder.path / COMPARISON).parent.mkdir()
    write_json(folder.path / COMPARISON, comparison())
    add_audit(folder.path / "forget" / ANSWER, "subtract", CLIENT_2.to_json())
    return folder


def test_the_run_is_read_as_it_is(run: RunFolder) -> None:
    """So that the cases below do not all end at the first field."""
    for _, read in READS.values():
        read(run)
    assert read_forgetting(run, ANSWER).request == CLIENT_2
    assert verify(run.path / "forget" / ANSWER).failed == ("audit",)  # It was written by hand


@pytest.mark.parametrize("name", READS)
@FUZZED
@given(changes=CHANGES)
def test_a_document_with_another_field_is_read_or_refused(
    name: str, changes: list[Change], run: RunFolder
) -> None:
    file, read = READS[name]
    path = run.path / file
    whole = path.read_text()
    lines = [json.loads(line) for line in whole.splitlines()] if file.endswith("l") else [json.loads(whole)]
    others = changed(lines, changes) if file.endswith("l") else [changed(lines[0], changes)]
    others = others if isinstance(others, list) else [others]
    try:
        path.write_text("".join(f"{text_of(other)}\n" for other in others))
        with suppress(LetheError):
            read(run)
    finally:
        path.write_text(whole)


@FUZZED
@given(changes=CHANGES)
def test_a_config_with_another_key_is_read_or_refused(changes: list[Change], memory_path: Path) -> None:
    path = memory_path / "config.toml"
    document = changed(RunConfig().model_dump(by_alias=True), changes)
    try:
        text = tomli_w.dumps(document)
    except (TypeError, AttributeError):
        return  # What TOML has no word for
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    path.write_bytes(text.encode(errors="surrogatepass"))
    with suppress(LetheError):
        RunConfig.from_toml(path).to_toml()


@pytest.mark.parametrize("is_signed", [True, False])
@FUZZED
@given(changes=CHANGES)
def test_a_certificate_with_another_field_is_verified_or_refused(
    is_signed: bool, changes: list[Change], run: RunFolder
) -> None:
    """It never passes as the run's own: it is not what was signed, or somebody else has signed it."""
    path = run.path / "forget" / ANSWER / CERTIFICATE
    whole = path.read_bytes()
    document = json.loads(whole)
    try:
        if is_signed:
            statement = json.loads(text_of(changed(document["certificate"], changes)))
            if not isinstance(statement, dict):
                return
            path.write_bytes(certificate.make(statement, KEY))
        else:
            path.write_text(text_of(changed(document, changes)))
        if path.read_bytes() != whole:
            with suppress(LetheError):
                assert verify(path).failed
    except (RecursionError, ValueError):
        return  # What not even the forger can write
    finally:
        path.write_bytes(whole)
