"""Which model is used: a run's, a forgetting's, or a client's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flwr.app import RecordDict
from torch import nn

from app.client.node import LOCAL_LAYERS
from app.data.unlabelled import Wanted
from app.forgettings.folder import (
    StoredForgetting,
    forgetting_paths,
    lineage_of,
    read_forgetting,
    sha256_of,
)
from app.forgettings.names import CERTIFICATE, RESULT
from app.messages import codec
from app.models.per_client import build_client_model, model_name_of
from app.project.loading import called
from app.simulation.kept_models import CLIENTS
from app.workflows.recorded import recorded_session
from app.workflows.session import Session
from app.workflows.trained import check_architecture
from strategies.client.own_models import ClientState, records_of
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.models import travelling
from strategies.models.ensemble import without_absent
from strategies.registry import lookup
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.tensor_file import read_sealed

_FORGET = "/forget/"


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that is used, and what belongs to it.

    Parameters
    ----------
    model
        On the CPU, in eval mode.
    forgetting
        The forgetting that made it; None: it is the run's own.
    client
        The client whose own it is; empty: it is everybody's.
    """

    folder: RunFolder
    session: Session
    model: nn.Module
    forgetting: StoredForgetting | None = None
    client: str = ""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or other groups; empty where there are none."""
        return self.session.server_data.class_names if self.session.task.has_groups else ()

    @property
    def name(self) -> str:
        """The run, and the forgetting in it, as a command takes them."""
        return self.folder.name + (f"{_FORGET}{self.forgetting.path.name}" if self.forgetting else "")

    @property
    def path(self) -> Path:
        """The file that has the model, or what of it all clients share."""
        return self.forgetting.model_path if self.forgetting else self.folder.path / MODEL

    @cached_property
    def sha256(self) -> str:
        """Hash of that file."""
        return sha256_of(self.path)

    @property
    def certificate(self) -> Path | None:
        """The certificate of the forgetting; None if there is none."""
        path = None if self.forgetting is None else self.forgetting.path / CERTIFICATE
        return path if path is not None and path.exists() else None

    @property
    def wanted(self) -> Wanted:
        """What the model's inputs are like."""
        session, project = self.session, self.session.work.project
        own = project.inputs
        return Wanted(
            session.server_data.forms,
            session.server_data.columns,
            session.terms,
            session.config.data.size,
            project.target,
            not session.work.has_data,
            None if own is None else lambda path: called("its inputs cannot be read", lambda: own(path)),
        )

    @property
    def notes(self) -> Sequence[str]:
        """What should be known before the model is used."""
        notes = list(self.session.notes)
        later = [path.name for path in forgetting_paths(self.folder) if (path / RESULT).exists()]
        if self.forgetting is None and later:
            named = f"{self.folder.name}{_FORGET}{later[0]}"
            notes.append(
                f"this is the model from before the forgetting {_listed(later)}; the one after it is {named}"
            )
        if not self.client and self.session.has_personal_models:
            notes.append("this is the model that all clients share; --client takes the one of a client")
        return notes


def open_subject(folder: RunFolder, forgetting: str = "", client: str = "") -> Subject:
    """Return the model of a finished run, of a forgetting in it, or of one of its clients.

    Raises
    ------
    BadInput
        If there is no such model.
    RunCorrupt
        If a file of the run is damaged.
    """
    session = recorded_session(folder)
    stored = read_forgetting(folder, forgetting) if forgetting else None
    path = stored.model_path if stored else folder.path / MODEL
    kept = None if not client else _kept(folder, client, stored)
    if session.has_client_models:
        model = _own(session, _required(session, kept, client), folder, stored, client)
    else:
        model = _shared(session, path)
        if session.config.model.has_local_layers or kept is not None:
            _personalise(session, model, _required(session, kept, client), _lineage(folder, stored), client)
    return Subject(folder, session, model.cpu().eval().requires_grad_(False), stored, client)


def _shared(session: Session, path: Path) -> nn.Module:
    state = read_sealed(path).tensors
    layout = wire.Layout.of(state)
    check_architecture(session, layout)
    model = session.model()
    wire.load_flat(model, layout.flatten(state), layout)
    return without_absent(model, session.task)


def _own(
    session: Session, kept: RecordDict, folder: RunFolder, stored: StoredForgetting | None, client: str
) -> nn.Module:
    """Return the model of a client of a run in which each has one of its own."""
    strategy, data = session.config.strategy, session.server_data
    name = model_name_of(strategy, {}, client)
    seed = session.config.run.seed
    model = build_client_model(name, data.input_shape, session.num_outputs, seed, client)
    if not ClientState(kept, _lineage(folder, stored), lookup(strategy.name).kept).read_model(model):
        raise BadInput(_absent(client, stored))
    return model


def _personalise(session: Session, model: nn.Module, kept: RecordDict, lineage: str, client: str) -> None:
    """Put what a client keeps of the model into the shared one: all of it, or its local layers."""
    strategy = session.config.strategy
    records = records_of(kept, lineage)
    if session.config.model.has_local_layers and f"{LOCAL_LAYERS}/{lineage}" in records:
        ClientState(kept, lineage, LOCAL_LAYERS).read(travelling.local(model))
        return
    if strategy.traits.personal_models and ClientState(kept, lineage, lookup(strategy.name).kept).read_model(
        model
    ):
        return
    raise BadInput(
        f"--client {client}: it keeps no model of its own in this run; leave --client out for the shared one"
    )


def _lineage(folder: RunFolder, stored: StoredForgetting | None) -> str:
    return "" if stored is None else lineage_of(folder, stored.path.name)


def _required(session: Session, kept: RecordDict | None, client: str) -> RecordDict:
    if kept is not None:
        return kept
    why = (
        f"{session.config.strategy.name} gives every client a model of its own"
        if session.has_client_models
        else 'model.batch-norm: "local" leaves layers with each client'
    )
    raise BadInput(f"{why}, and the server has none: give --client ID")


def _absent(client: str, stored: StoredForgetting | None) -> str:
    where = "in the run" if stored is None else f"after {stored.path.name}"
    return f"--client {client}: it has no model {where}"


def _kept(folder: RunFolder, client: str, stored: StoredForgetting | None) -> RecordDict:
    """Return what a simulated client kept in the run and in each of its forgettings."""
    nodes = folder.read_nodes()
    if client not in nodes:
        known = ", ".join(sorted(nodes, key=wire.client_sort_key)) or "none"
        raise BadInput(f"--client {client}: no such client; known clients: {known}")
    node, kept = str(nodes[client]), RecordDict()
    checkpoint = folder.read_checkpoint()
    states = {} if checkpoint is None else {str(n): s for n, s in checkpoint.client_states.items()}
    if not states:
        raise BadInput(
            f"--client {client}: the clients' models are not in the run's folder: they are with the clients"
        )
    if node in states:
        kept.update(codec.load(states[node]))
    if stored is not None:
        for path in forgetting_paths(folder):
            held = read_sealed(path / CLIENTS).tensors if (path / CLIENTS).exists() else {}
            if node in held:
                kept.update(codec.load(held[node].numpy().tobytes()))
    return kept


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
