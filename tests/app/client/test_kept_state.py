"""What a client knows survives its node, on the node's own disk and for its run alone."""

import stat
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from app import client_app
from app.client.kept_state import keep_state
from app.simulation import LocalGrid
from strategies.client.own_models import ClientState
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.layers.privacy.accounting import Spend
from strategies.layers.privacy.ledger import Account, read_account, write_account

RUN, OTHER = "0a" * 16, "ff" * 16


@pytest.fixture(scope="module", autouse=True)
def _identity() -> None:
    """Give messages what Flower's processes give them."""
    with LocalGrid("tests.app.simulation.apps:app", {}, 1, workers=1):
        pass


def context(folder: Path | None, client_id: str = "ward-3.b") -> Context:
    """Return a client's context as Flower makes it for a run that the node has not seen."""
    config = {"client-id": client_id} | ({} if folder is None else {"state": str(folder)})
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={}, series_id=1)


def message(run_id: str | None = RUN) -> Message:
    told = ConfigRecord({} if run_id is None else {wire.RUN_ID: run_id})
    return Message(RecordDict({wire.CONFIG: told}), 1, "train")


def pays(message: Message, context: Context) -> Message:
    """Work on a message as a private client does, whose model is its own."""
    write_account(context.state, read_account(context.state).after((Spend(1.0, 0.1, 5),), 1.0))
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(read_account(context.state).attempts)
    ClientState(context.state, "", "own").write_model(model)
    return message


def only_looks(message: Message, context: Context) -> Message:
    return message


def test_account_and_model_survive_a_restart(tmp_path: Path) -> None:
    """Two rounds; then a new context, as after a restart: the third round counts from there."""
    first = context(tmp_path)
    for _ in range(2):
        keep_state(message(), first, pays)
    second = context(tmp_path)
    keep_state(message(), second, pays)
    assert read_account(second.state) == Account((Spend(1.0, 0.1, 15),), 3, 1.0)
    model = torch.nn.Linear(2, 1)
    assert ClientState(second.state, "", "own").read_model(model)
    assert model.weight.tolist() == [[3.0, 3.0]]


def test_the_file_is_its_owners_alone_and_names_client_and_run(tmp_path: Path) -> None:
    keep_state(message(), context(tmp_path), pays)
    (path,) = tmp_path.iterdir()
    assert path.name == f"ward-3%2eb-{RUN}.safetensors"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_runs_and_other_clients_do_not_see_it(tmp_path: Path) -> None:
    keep_state(message(), context(tmp_path), pays)
    for told, other in ((OTHER, context(tmp_path)), (RUN, context(tmp_path, "c"))):
        keep_state(message(told), other, only_looks)
        assert not other.state


def test_what_flower_has_kept_is_not_replaced(tmp_path: Path) -> None:
    """The state in memory is the later one."""
    keep_state(message(), context(tmp_path), pays)
    present = context(tmp_path)
    write_account(present.state, Account((), 7, 1.0))
    keep_state(message(), present, only_looks)
    assert read_account(present.state).attempts == 7


def test_a_state_that_was_emptied_is_kept_empty(tmp_path: Path) -> None:
    """A client of a masked sum forgets its keys and shares when it has opened some."""

    def forgets(message: Message, context: Context) -> Message:
        context.state.clear()
        return message

    present = context(tmp_path)
    keep_state(message(), present, pays)
    keep_state(message(), present, forgets)
    restored = context(tmp_path)
    keep_state(message(), restored, only_looks)
    assert not restored.state


def test_nothing_is_written_where_nothing_is_asked_or_changed(tmp_path: Path) -> None:
    keep_state(message(), context(None), pays)
    keep_state(message(None), context(tmp_path), pays)
    keep_state(message(), context(tmp_path), only_looks)
    assert not any(tmp_path.iterdir())


def test_a_client_that_fails_keeps_what_it_had(tmp_path: Path) -> None:
    keep_state(message(), context(tmp_path), pays)

    def fails(message: Message, context: Context) -> Message:
        context.state["half"] = ArrayRecord()
        raise LetheError("out of memory")

    with pytest.raises(LetheError, match="out of memory"):
        keep_state(message(), context(tmp_path), fails)
    restored = context(tmp_path)
    keep_state(message(), restored, only_looks)
    assert "half" not in restored.state
    assert read_account(restored.state).attempts == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda _: b"x" * 400])
def test_a_damaged_state_stops_the_client(tmp_path: Path, damage: object) -> None:
    """It must not begin anew as if nothing had been spent; the message does not say where the file lies."""
    keep_state(message(), context(tmp_path), pays)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(LetheError, match=rf"state: {path.name} is damaged; restore it") as raised:
        keep_state(message(), context(tmp_path), pays)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("run_id", ["../../etc/x", "", "0A", "a" * 65])
def test_a_run_that_cannot_name_a_file_is_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(BadInput, match="run-id: expected at most 64 hexadecimal digits"):
        keep_state(message(run_id), context(tmp_path), pays)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="state: the folder in the node's config is not there"):
        keep_state(message(), context(tmp_path / "none"), pays)


def test_the_client_app_keeps_it() -> None:
    assert keep_state in client_app.app._mods


@pytest.mark.parametrize("folder", [None, "kept"])
def test_a_state_that_flower_cannot_carry_is_refused_and_not_kept(
    tmp_path: Path, folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a gRPC message's 2 GiB; here of 40 bytes, with a model of eleven numbers in the state."""
    monkeypatch.setattr("app.client.kept_state.MOST_BYTES", 40)
    place = None if folder is None else tmp_path / folder
    if place is not None:
        place.mkdir()
    given = context(place)
    given.state["few"] = wire.record_of({"w": torch.ones(2)})

    def keeps_much(message: Message, context: Context) -> Message:
        context.state["model"] = wire.record_of({"w": torch.ones(11)})
        return only_looks(message, context)

    with pytest.raises(LetheError, match=r"the client's state: .* which Flower carries from one message"):
        keep_state(message(), given, keeps_much)
    assert list(given.state) == ["few"]
    assert place is None or not list(place.iterdir())
    keep_state(message(), given, only_looks)
