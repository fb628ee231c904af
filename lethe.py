"""Lethe: federated learning that can forget, from Python.

::

    import lethe

    project = lethe.Project(model=make_model, data=data_of)
    run = lethe.train(project, rounds=20, clients=10, strategy="fedprox")
    gone = run.forget(client="3")
    gone.audit()["verdict"]

In a Flower project, the components are ``app = lethe.server_app(project)`` and ``app =
lethe.client_app(project)``, each in a module of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

try:
    from strategies.core.ours import check_ours
except ImportError as error:
    raise ImportError(
        f"another module named 'strategies' hides Lethe's ({error}); rename it, or start in another folder "
        "and take its folder out of PYTHONPATH"
    ) from None
check_ours()  # Before the imports that would fail with less to say

from app.config.run_config import RunConfig
from app.config.settings import RunSettings
from app.data.columns import Columns
from app.project import LoadedProject, ModelSpec, Node, Project, bind, loaded_from, using
from app.project.loading import IN_PYTHON, folder_now, named
from app.project.manifest import with_config_file
from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.core.examples import Examples
from strategies.core.extras import not_installed
from strategies.core.settings import Scalar
from strategies.runs.folder import CONFIG, MODEL, RunFolder
from strategies.task import Classification, OutputSpec, Task

if TYPE_CHECKING:
    import pandas as pd
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from torch import nn

    from app.workflows.observer import Observer
    from unlearning.run import TrainedRun

__all__ = [
    "BadInput",
    "Classification",
    "Columns",
    "Examples",
    "Forgetting",
    "LetheError",
    "ModelSpec",
    "Node",
    "OutputSpec",
    "Project",
    "Run",
    "RunCorrupt",
    "Task",
    "client_app",
    "open_run",
    "server_app",
    "train",
]

Config = Mapping[str, Scalar] | str | Path
"""Keys of the run config with their values, or the TOML file that holds them."""


def train(
    project: Project | None = None,
    *,
    rounds: int | None = None,
    strategy: str | None = None,
    clients: int | None = None,
    seed: int | None = None,
    config: Config | None = None,
    progress: bool = True,
) -> "Run":
    """Train a model across virtual clients in this process tree, and leave a run folder.

    Parameters
    ----------
    project
        The user's own work; None: everything is built in.
    rounds, strategy, clients, seed
        The keys ``run.rounds``, ``strategy.name``, ``data.clients`` and ``run.seed``; they stand above
        `config`. None: as there, or the default.
    progress
        Whether progress is written to stderr.

    Raises
    ------
    BadInput
        If something cannot be used; nothing is left behind.
    LetheError
        If too few clients can be used, or the disk does not take the results.

    Examples
    --------
    >>> import tempfile
    >>> home = {"run.home": tempfile.mkdtemp(), "model.name": "mlp", "data.train-limit": 200}
    >>> run = train(rounds=1, clients=4, config=home, progress=False)
    >>> run.summary["rounds"], type(run.model()).__name__
    (1, 'Sequential')
    """
    from app import workflows

    given = {"run.rounds": rounds, "strategy.name": strategy, "data.clients": clients, "run.seed": seed}
    values = {**_values(config), **{key: value for key, value in given.items() if value is not None}}
    loaded = None if project is None else named(project)
    if loaded is not None:
        values["run.project"] = loaded.reference
    resolved = RunConfig.from_flat(values)
    with using(loaded), _observed(progress) as observer:
        return Run(workflows.train(resolved, observer), loaded, progress)


def open_run(
    run: str | Path, project: Project | None = None, *, home: str | Path | None = None, progress: bool = True
) -> "Run":
    """Open a run by its name under a home, or by its folder.

    `project` is needed for a run whose project was handed over in Python.

    Raises
    ------
    BadInput
        If there is no such run.
    """
    settings = RunSettings() if home is None else RunSettings(home=str(home))
    folder = RunFolder.open(run, settings.home_path)
    reference = RunConfig.from_toml(folder.path / CONFIG).run.project
    if project is None:
        loaded = _recorded(folder, reference)
    else:
        found = named(project)
        loaded = LoadedProject(project, reference or IN_PYTHON, found.folder, found.sha256)
    return Run(folder, loaded, progress)


def server_app(project: Project) -> "ServerApp":
    """Return the ServerApp that trains, forgets and audits with a project."""
    from app.server_app import app

    bind(named(project))
    return app


def client_app(project: Project) -> "ClientApp":
    """Return the ClientApp that trains a project's model on its data."""
    from app.client_app import ProjectClientApp

    loaded = named(project)
    bind(loaded)
    return ProjectClientApp(loaded)


@final
class Run:
    """A run: what was trained, and what can be done with it. Made by `train` and `open_run`.

    Parameters
    ----------
    folder
        The run's folder on the disk.
    loaded
        Its project; None: everything is built in.
    """

    def __init__(self, folder: RunFolder, loaded: LoadedProject | None, progress: bool = True) -> None:
        self._folder = folder
        self._loaded = loaded
        self._progress = progress

    def __repr__(self) -> str:
        """Return the run's name and place."""
        return f"<lethe.Run {self.name} in {self.path.parent}>"

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self._folder.name

    @property
    def path(self) -> Path:
        """The run's folder, absolute."""
        return self._folder.path

    @property
    def config(self) -> dict[str, Scalar]:
        """Every key of the run config with its value."""
        return RunConfig.from_toml(self.path / CONFIG).to_flat()

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the run says of itself; BadInput if it is not finished."""
        return self._folder.read_summary()

    @property
    def metrics(self) -> "pd.DataFrame":
        """The figures of each round, a row per round.

        Raises
        ------
        BadInput
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise BadInput(f"metrics: {not_installed('pandas', 'tables')}") from None
        return pd.json_normalize(self._folder.read_metrics()).set_index("round")

    def model(self) -> "nn.Module":
        """Return the trained model, on the CPU, in eval mode."""
        with using(self._loaded):
            run = self._opened()
            return run.model(run.final).cpu().eval()

    def predict(self, inputs: Any, *, client: str = "") -> list[dict[str, Any]]:
        """Return a row for each input: what is predicted of it, and the probability of each class.

        Parameters
        ----------
        inputs
            Without targets: a file or folder, a tensor or array, a dict of them, a frame, or a Dataset. They
            are encoded, sized and scaled as the run's training data were.
        client
            Whose model, where each client has one of its own.

        Raises
        ------
        BadInput
            If the inputs do not fit the run's.
        """
        return _predicted(self, "", inputs, client)

    def export(self, folder: str | Path, format: str = "torch", *, client: str = "") -> Path:
        """Write the model for programs without Lethe into a new folder: ``torch``, ``onnx``, ``safetensors``.

        Raises
        ------
        BadInput
            If it cannot be exported so; nothing is left behind.
        """
        return _exported(self, "", Path(folder), format, client)

    def forget(
        self,
        *,
        client: str | Sequence[str] = (),
        label: str | int | Sequence[str | int] = (),
        samples: Mapping[str, Sequence[int]] | None = None,
        method: str = "auto",
        after: str = "",
        config: Config | None = None,
    ) -> "Forgetting":
        """Remove clients, classes or single examples from the model; the run itself is not altered.

        Parameters
        ----------
        client, label
            Client-ids, or classes by name or number; one, or several.
        samples
            For each client-id, positions in its data.
        method
            See ``lethe methods``; ``auto``: the best for this run.
        after
            Name of an earlier forgetting to go on from.
        config
            Keys of the section ``forget``.

        Raises
        ------
        BadInput
            If the request cannot be served; nothing is changed.
        """
        from app import workflows
        from unlearning.pruning import sparse_path
        from unlearning.request import ForgetRequest

        kinds = [bool(_several(client)), bool(_several(label)), bool(samples)]
        if kinds.count(True) != 1:
            raise BadInput("what to forget: give client, label or samples, exactly one of them")
        if labels := _several(label):
            from app.data.record import classes_in

            numbers, names = classes_in(self._folder, labels)
            request = ForgetRequest(classes=numbers, class_names=names)
        else:
            found = {str(name): tuple(positions) for name, positions in (samples or {}).items()}
            request = ForgetRequest(tuple(_several(client)), samples=found)
        values = {**_values(config), "forget.method": method}
        settings = RunConfig.from_flat({**self.config, **values}).forget
        with using(self._loaded), _observed(self._progress) as observer:
            settings = workflows.choose_method(self._folder, request, settings, after)
            name = workflows.forget(self._folder, request, settings, observer, after=after)
        folder = RunFolder(sparse_path(self._folder, settings))
        return Forgetting(self, folder, name)

    def forgettings(self) -> "list[Forgetting]":
        """Return what was forgotten from the run so far."""
        return [Forgetting(self, self._folder, name) for name in self._folder.forget_requests()]

    def go_on(self, rounds: int = 10, *, after: str = "", name: str = "") -> "Run":
        """Train for more rounds in a new run that holds both parts; the run itself is not altered.

        Parameters
        ----------
        rounds
            How many more, at least 1.
        after
            Name of a forgetting to go on from; what it forgot takes no part; empty: the run's own model.
        name
            The new run's; empty: ``<name>-to-<rounds>``, with a number if there is one already.

        Raises
        ------
        BadInput
            If the run is not finished, or cannot be gone on with.
        """
        from app import workflows

        named_so = [f"run.name={name}"] if name else []
        with using(self._loaded), _observed(self._progress) as observer:
            made = workflows.go_on(self._folder, rounds, after, named_so, observer)
        return Run(made, self._loaded, self._progress)

    def suspects(self, *, level: float = 0.05) -> Mapping[str, Any]:
        """Rank the clients by how bad they look, from the update log alone; no client is asked.

        Parameters
        ----------
        level
            False-alarm rate: of runs without a bad client, how many may name one; above 0 and below 1.

        Returns
        -------
        mapping
            ``standing-out`` has the ids of the clients that stand out, ``clients`` all, the worst first.

        Raises
        ------
        BadInput
            If the server saw no single updates, or the clients have no common model.
        """
        from app import workflows

        with using(self._loaded), _observed(self._progress) as observer:
            return workflows.suspects(self._folder, level, observer)

    def report(self) -> Path:
        """Write the report, one page, and return its path."""
        from app.report.page import write_report

        return write_report(self._folder)

    def _opened(self) -> "TrainedRun":
        from app.workflows.session import open_session
        from app.workflows.trained import open_trained_run

        return open_trained_run(self._folder, open_session(self._folder))


@final
class Forgetting:
    """A forgetting that was served: its model, its audit, its certificate. Made by `Run.forget`."""

    def __init__(self, run: Run, folder: RunFolder, name: str) -> None:
        self._run = run
        self._folder = folder
        self.name = name
        """Name of the folder under ``forget/``, such as ``client-3-distill``."""

    def __repr__(self) -> str:
        """Return the forgetting's name and its run's."""
        return f"<lethe.Forgetting {self.name} of {self._run.name}>"

    @property
    def path(self) -> Path:
        """The forgetting's folder, absolute."""
        return self._folder.path / "forget" / self.name

    @property
    def result(self) -> Mapping[str, Any]:
        """What was done: method, seconds, traffic, notes."""
        from app.forgettings.folder import read_result

        return read_result(self.path)

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The signed certificate of what was done."""
        from app.forgettings.names import CERTIFICATE
        from strategies.runs.files import read_json

        return read_json(self.path / CERTIFICATE)

    def model(self) -> "nn.Module":
        """Return the model after the forgetting, on the CPU, in eval mode."""
        from strategies.runs.tensor_file import read_sealed

        with using(self._run._loaded):
            run = self._run._opened()
            final = run.layout.flatten(read_sealed(self.path / MODEL).tensors)
            return run.model(final).cpu().eval()

    def predict(self, inputs: Any, *, client: str = "") -> list[dict[str, Any]]:
        """Return a row for each input, by the model after the forgetting; see `Run.predict`."""
        return _predicted(self._run, self.name, inputs, client, self._folder)

    def export(self, folder: str | Path, format: str = "torch", *, client: str = "") -> Path:
        """Write the model after the forgetting into a new folder; see `Run.export`."""
        return _exported(self._run, self.name, Path(folder), format, client, self._folder)

    def audit(self, *, config: Config | None = None) -> Mapping[str, Any]:
        """Measure how complete the forgetting is, against a model retrained without the data.

        `config` has keys of the section ``audit``.

        Raises
        ------
        BadInput
            If it cannot be measured.
        """
        from app import workflows
        from app.forgettings.folder import read_audit, read_forgetting

        stored = read_forgetting(self._folder, self.name)
        settings = RunConfig.from_flat({**self._run.config, **_values(config)}).audit
        with using(self._run._loaded), _observed(self._run._progress) as observer:
            workflows.audit(
                self._folder, stored.request, [stored.method], settings, observer, after=stored.after
            )
        found = read_audit(self.path)
        if found is None:
            raise LetheError(f"{self.path}: the audit was not written")
        return found


def _predicted(
    run: Run, forgetting: str, inputs: Any, client: str, folder: RunFolder | None = None
) -> list[dict[str, Any]]:
    from app.data.unlabelled import read_inputs
    from app.use import open_subject, rows_of

    with using(run._loaded):
        subject = open_subject(folder or run._folder, forgetting, client)
        return list(rows_of(subject, read_inputs(inputs, subject.wanted)))


def _exported(  # a parameter per argument of the two methods
    run: Run, forgetting: str, place: Path, kind: str, client: str, folder: RunFolder | None = None
) -> Path:
    from app.use import export, open_subject

    with using(run._loaded):
        return export(open_subject(folder or run._folder, forgetting, client), kind, place).path


@contextmanager
def _observed(progress: bool) -> "Iterator[Observer]":
    from app.workflows.observer import Quiet

    if not progress:
        yield Quiet()
        return
    from rich.console import Console

    from app.cli.progress import TerminalObserver

    with TerminalObserver(Console(stderr=True)) as observer:
        yield observer


def _values(config: Config | None) -> dict[str, Scalar]:
    if config is None:
        return {}
    if isinstance(config, str | Path):
        return with_config_file({"run.config-file": str(config)}, Path.cwd())
    return dict(config)


def _several(given: str | int | Sequence[str | int]) -> list[str]:
    return [str(given)] if isinstance(given, str | int) else [str(each) for each in given]


def _recorded(folder: RunFolder, reference: str) -> LoadedProject | None:
    from app.data.record import project_folder_of

    return loaded_from(reference, folder_now(reference, project_folder_of(folder))) if reference else None
