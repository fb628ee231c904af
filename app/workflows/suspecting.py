"""Ranks the clients of a finished run by how bad they look, from its update log and the server's own data."""

import math
from collections.abc import Iterator
from typing import Any

from app.config.run_config import RunConfig
from app.forgettings.names import SUSPECTS
from app.workflows.observer import Observer, Quiet
from app.workflows.removing import on_run
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.runs.files import write_json
from strategies.runs.folder import CONFIG, RunFolder
from strategies.threads import one_thread
from unlearning.default_method import against_poison, default_method
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.suspects.suspects import LEVEL, NO_LOG, find_suspects


@on_run
def suspects(folder: RunFolder, level: float = LEVEL, observer: Observer | None = None) -> dict[str, Any]:
    """Rank the clients of a run, write ``suspects.json`` into its folder, and return it as plain data.

    No client is asked, and nothing else of the run is changed. `level` is the false-alarm rate: the share of
    runs, of clients that differ by chance alone, in which one may stand out, above 0 and below 1.

    Raises
    ------
    BadInput
        If the run is not finished, its clients have no common model, or the server saw no single updates.
    RunCorrupt
        If its log is damaged.
    """
    if not (math.isfinite(level) and 0 < level < 1):
        raise BadInput(f"level: given {level:g}, allowed a number > 0 and < 1")
    _check_config(RunConfig.from_toml(folder.path / CONFIG))
    observer = observer or Quiet()
    observer.phase("suspects", 1)
    run = open_trained_run(folder, open_session(folder))
    with one_thread():
        found = find_suspects(run, level)
    observer.advance("compared")
    request = ForgetRequest(clients=tuple(found.standing_out or [found.clients[0].client_id]))
    document = {
        "run": folder.name,
        **found.to_json(),
        "method": against_poison(run, request, ForgetSettings()),
        "default": default_method(run, request, ForgetSettings()),
        "notes": [*found.notes, *_notes(run)],
    }
    write_json(folder.path / SUSPECTS, document)
    return document


def _notes(run: TrainedRun) -> Iterator[str]:
    if run.plan.privacy.on:
        yield (
            f'with privacy.unit = "{run.plan.privacy.unit}" updates are clipped, and noise is in them or in '
            "the model: a bad client is harder to see"
        )
    if run.plan.strategy.traits.asynchronous:
        yield (
            f"with {run.plan.strategy.name} updates may be late: those of slow clients point elsewhere, "
            "without being bad"
        )


def _check_config(config: RunConfig) -> None:
    """Refuse a run in which no client's update can be looked at."""
    strategy, privacy = config.strategy, config.privacy
    if not strategy.traits.one_model:
        raise BadInput(
            f"strategy.name: given {shown(strategy.name)}, but suspects compares updates of one model for all"
        )
    if not strategy.traits.averages:
        raise BadInput(
            f"strategy.name: given {shown(strategy.name)}, but suspects compares updates whose average moved "
            "the model"
        )
    if (groups := config.train.isolation) > 1:
        raise BadInput(
            f"train.isolation: given {groups}, but suspects compares updates of one model for all; allowed 1"
        )
    if privacy.secure_aggregation:
        raise BadInput(
            "privacy.secure-aggregation: given true, so the server saw masked sums only, and nobody can be "
            "named"
        )
    if privacy.encryption != "none":
        raise BadInput(
            f'privacy.encryption: given "{privacy.encryption}", so the server saw an encrypted sum only, and '
            "nobody can be named"
        )
    if not config.log.enabled:
        raise BadInput(NO_LOG)
