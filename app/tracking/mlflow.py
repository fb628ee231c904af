"""MLflow: a run of the experiment ``lethe``, and a child run for each work on it.

It goes to the server that ``MLFLOW_TRACKING_URI`` names. Without that, it is kept under ``track/mlflow``, in
files: MLflow would take seconds to make the tables of a database for each run.
"""

import os
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, final

from app.tracking.tracker import Tracked
from strategies.core.settings import Scalar

FOLDER, EXPERIMENT = "mlflow", "lethe"
OWN_ID = "lethe-id"
"""Tag with the id of the work, by which it is found again."""
_AT_ONCE = 100
"""Params in a request: MLflow takes no more."""
_LONGEST = 500
_STATES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""Of the environment, where the user has not set them: MLflow calls home, and tries for minutes."""


@final
class MLflow:
    """Logs metrics and params to a run of MLflow's."""

    def __init__(self, tracked: Tracked) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=_place(tracked))
        experiment = _experiment(self._client)
        self._run_id = _found(self._client, experiment, tracked.id)
        if self._run_id:
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            self._run_id = self._made(experiment, tracked)

    def _made(self, experiment: str, tracked: Tracked) -> str:
        from mlflow.entities import Param

        parent = _found(self._client, experiment, tracked.parent) if tracked.parent else ""
        tags = {OWN_ID: tracked.id, **({"mlflow.parentRunId": parent} if parent else {})}
        run_id = str(self._client.create_run(experiment, tags=tags, run_name=tracked.name).info.run_id)
        params = (Param(key, str(value)[:_LONGEST]) for key, value in tracked.config.items())
        while some := list(islice(params, _AT_ONCE)):
            self._client.log_batch(run_id, params=some)
        return run_id

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of a step, in one request."""
        self._log(values.items(), step)

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        """Log the results: numbers as metrics, texts as tags."""
        numbers = ((f"summary/{k}", float(v)) for k, v in summary.items() if not isinstance(v, str))
        self._log(numbers, 0)
        for key, value in summary.items():
            if isinstance(value, str):
                self._client.set_tag(self._run_id, f"lethe-{key}", value)
        self._client.set_terminated(self._run_id, _STATES[outcome])

    def _log(self, values: Iterable[tuple[str, float]], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._run_id, metrics=[Metric(key, v, now, step) for key, v in values])


def begin(tracked: Tracked) -> MLflow:
    """Return the tracker of a piece of work."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    return MLflow(tracked)


def _place(tracked: Tracked) -> str:
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tracked.folder / FOLDER).as_uri()


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _found(client: Any, experiment: str, own_id: str) -> str:
    """Return the id that MLflow gave to a piece of work; empty if it has none."""
    runs = client.search_runs([experiment], f"tags.`{OWN_ID}` = '{own_id}'", max_results=1)
    return str(runs[0].info.run_id) if runs else ""
