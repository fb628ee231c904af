"""Files of a run in which one field is another: of a wrong type, missing, negative, huge, or not finite.

Each file is well formed, and hashes and signatures in it are right where whoever wrote it could make them.
Every reader of it reads it, or says in one clear error what is wrong. As many cases as in
`tests.test_fuzzing`.
"""

import copy
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, strategies as st

from app.answers import CERTIFICATE, RESULT, read_answer
from app.config import RunConfig
from app.report.contents import read_run
from app.report.page import render
from app.run_verification import verify_run
from app.session import open_session, open_trained_run
from app.verification import verify
from app.workflows import list_runs
from strategies.errors import LetheError
from strategies.log.folder import INDEX
from strategies.log.index import Index, _digest
from strategies.run_folder import SUMMARY, RunFolder
from strategies.run_home import MARKER
from strategies.update_log import UpdateLog
from tests.app.conftest import CLIENT_2
from tests.strategies.update_logs import HAND_WORKED, make_log
from tests.test_fuzzing import FUZZED, damage
from unlearning import certificate
from unlearning.request import read_samples

ANSWER = "client-2-subtract"
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
    return read_answer(folder, ANSWER).seconds


def reported(folder: RunFolder) -> object:
    return render(read_run(folder))


def opened(folder: RunFolder) -> object:
    return RunFolder.open(folder.path).run_id


READS: Mapping[str, tuple[str, Read]] = {
    "summary, for the list": (SUMMARY, listed),
    "summary, for the checks": (SUMMARY, verify_run),
    "summary, for a forgetting": (SUMMARY, trained),
    "metrics, for the report": ("metrics.jsonl", reported),
    "summary, for the report": (SUMMARY, reported),
    "result, for the report": (f"forget/{ANSWER}/{RESULT}", reported),
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
    return folder


def test_the_run_is_read_as_it_is(run: RunFolder) -> None:
    """So that the cases below do not all end at the first field."""
    for _, read in READS.values():
        read(run)
    assert read_answer(run, ANSWER).request == CLIENT_2
    assert verify(run.path / "forget" / ANSWER).failed == ()


@pytest.fixture(scope="module")
def _unwritten_pictures() -> Iterator[None]:
    """Leave pictures out of reports, drawn as they are: writing them takes ten times as long as all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "matplotlib.figure.Figure.savefig",
            lambda self, file, **_: file.write('<svg viewBox="0 0 1 1"></svg>'),
        )
        yield


@pytest.mark.usefixtures("_unwritten_pictures")
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


# the update log

VALUES = st.sampled_from(
    [None, 0, -1, 2, 2**62, 1.5, float("inf"), -1e308, "", "a", "../x", "[]", "{}", b"\xff"]
)
META = st.sampled_from(
    [
        *("", "[]", "{}", "3", "null", '"a"', "interval:0", "full:1", "sum", "float99", "../../x", "\x00"),
        *("[" * 9000, "9" * 5000, '{"names": 3, "shapes": 4}', '{"names": ["w"], "shapes": [[-1]]}'),
        *('{"names": ["w"], "shapes": [[4611686018427387904]]}', '{"names": [1], "shapes": [["a"]]}'),
        *('[{"clients": 3}]', '[{"clients": [], "time": 1, "sha256_before": 1}]'),
    ]
)
COLUMNS = {
    "rounds": ["round", "averaging", "digest"],
    "entries": ["round", "client_id", "num_examples", "weight", "norm", "sha256"],
}


@pytest.fixture(scope="module")
def log(memory_home: Path) -> Path:
    """Return the folder of a log of two rounds."""
    path = memory_home / "log"
    make_log(path, HAND_WORKED).close()
    return path


def ask_all(path: Path) -> None:
    """Ask a log for all that it can be asked; each question is answered or refused."""
    log = UpdateLog.open(path)
    questions: list[Callable[[], object]] = [
        log.facts,
        log.verify,
        log.unreadable,
        log.kept_rounds,
        log.averaging_rounds,
        lambda: log.delta(1, "a"),
        lambda: log.weighted_sum("b"),
    ]
    for question in questions:
        with suppress(LetheError):
            question()
    with suppress(LetheError), UpdateLog.open(path, write=True) as writer:
        writer.rewind(1)


def reseal(path: Path) -> None:
    """Make the hashes of an index those of what it holds now, where that is possible."""
    with closing(sqlite3.connect(path)) as connection, connection:
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        meta.pop("digest", None)
        with suppress(TypeError):
            connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'digest'", [_digest(sorted(meta.items()))]
            )
    with suppress(LetheError, KeyError, TypeError, ValueError):
        links = Index(path).links()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(
                "UPDATE rounds SET digest = ? WHERE round = ?", [(d, t) for t, d in links.items()]
            )
        Index(path).describe("head", list(links.values())[-1])


@pytest.mark.parametrize("is_sealed", [True, False])
@FUZZED
@given(table=st.sampled_from(sorted(COLUMNS)), which=st.integers(0, 5), row=st.integers(0, 3), value=VALUES)
def test_an_index_with_another_entry_is_read_or_refused(
    is_sealed: bool, table: str, which: int, row: int, value: Any, log: Path, memory_path: Path
) -> None:
    path = memory_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(log, path)
    column = COLUMNS[table][which % len(COLUMNS[table])]
    order = "round, client_id" if table == "entries" else "round"
    with closing(sqlite3.connect(path / INDEX)) as connection, suppress(sqlite3.IntegrityError), connection:
        rows = connection.execute(f"SELECT {order} FROM {table} ORDER BY {order}").fetchall()
        key = rows[row % len(rows)]
        names = " AND ".join(f"{name} = ?" for name in order.split(", "))
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {names}", [value, *key])
    if is_sealed:
        reseal(path / INDEX)
    with suppress(LetheError):
        ask_all(path)


@pytest.mark.parametrize("is_sealed", [True, False])
@FUZZED
@given(
    key=st.sampled_from(["layout", "retention", "dtype", "keys", "purges", "head", "format", "version"]),
    value=META,
)
def test_an_index_with_another_description_is_read_or_refused(
    is_sealed: bool, key: str, value: str, log: Path, memory_path: Path
) -> None:
    path = memory_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(log, path)
    with closing(sqlite3.connect(path / INDEX)) as connection, connection:
        if value:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])
        else:
            connection.execute("DELETE FROM meta WHERE key = ?", [key])
    if is_sealed:
        reseal(path / INDEX)
    with suppress(LetheError):
        ask_all(path)


@FUZZED
@given(change=damage(), file=st.sampled_from([INDEX, "00001/a.safetensors"]))
def test_a_log_with_damaged_bytes_is_read_or_refused(
    change: Callable[[bytes], bytes], file: str, log: Path, memory_path: Path
) -> None:
    """And a damage of an update is named."""
    path = memory_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(log, path)
    whole = (path / file).read_bytes()
    (path / file).write_bytes(change(whole))
    if file != INDEX:
        assert bool(UpdateLog.open(path).verify()) == (change(whole) != whole)
    with suppress(LetheError):
        ask_all(path)
