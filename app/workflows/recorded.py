"""A finished run as its folder alone describes it: no data are read, so they may be gone."""

from app.config.run_config import RunConfig
from app.data import ServerData, numbered
from app.data.forms import ONE, Form
from app.data.record import (
    InputRecord,
    class_names_of,
    columns_of,
    notes_on_project,
    project_folder_of,
    recorded_inputs,
)
from app.project import Workload
from app.workflows.scaling import read_scale
from app.workflows.session import Session
from strategies.runs.folder import CONFIG, RunFolder


def recorded_session(folder: RunFolder) -> Session:
    """Return the session of a finished run, whose server has no data.

    Raises
    ------
    BadInput
        If the run is not finished, or its project cannot be loaded.
    RunCorrupt
        If one of its files is damaged.
    """
    summary = folder.read_summary()
    config = RunConfig.from_toml(folder.path / CONFIG)
    work = Workload.of(config, project_folder_of(folder), recorded=True)
    said, record = summary["data"], recorded_inputs(folder)
    groups, shape = int(said["num-classes"]), tuple(said["input-shape"])
    names = class_names_of(folder) or numbered(groups)
    if record is None:  # A run of before that was recorded
        record = InputRecord({ONE: Form(shape)} if shape else {}, work.standard_scale())
    data = ServerData(
        None, None, groups, shape, str(said["name"]), names, columns=columns_of(folder), forms=record.forms
    )
    session = Session(work.config, work, data, brings_config=True, folder=folder)
    session.notes += notes_on_project(folder, work.config, work.project_record)
    session.scale = read_scale(folder) or record.scale
    return session
