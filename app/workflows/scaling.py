"""The scales of columns and of targets that the clients have agreed on, and where a run keeps them.

The sums are those of the clients that were there when the run was begun. A retraining without one of them
keeps them: asking again would give the server two sums over nearly the same clients, whose difference is
the forgotten client's. The certificate says so.
"""

import math

from app.client.secure import target_sums
from app.config.run_config import RunConfig
from app.forgettings.folder import record_path
from strategies.analytics.asking import Sharing
from strategies.analytics.scaling import ask_scale
from strategies.analytics.target_scale import ask_target_scale
from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import SCALE, TARGET_SCALE, RunFolder
from strategies.server.cohort import Cohort


def learnt_scale(config: RunConfig, input_shape: tuple[int, ...], cohort: Cohort) -> tuple[float, ...]:
    """Ask the clients for the sums of their columns; return the means, then the deviations.

    Raises
    ------
    BadInput
        If the inputs are no table.
    LetheError
        If too few clients are there, or answer.
    """
    if len(input_shape) != 1:
        raise BadInput(f'data.scale: given "federated", which is for tables; inputs have shape {input_shape}')
    limit, least = config.data.scale_range, config.analytics.min_clients
    return ask_scale(cohort, input_shape[0], limit, least, Sharing(config.privacy.threshold, "data.scale"))


def learnt_target_scale(config: RunConfig, cohort: Cohort) -> float:
    """Ask the clients for the sums of their targets; return the scale of a regression.

    Raises
    ------
    LetheError
        If too few clients are there, or answer, or noise hides it.
    """
    return ask_target_scale(
        cohort, target_sums(config), config.analytics.min_clients, config.privacy.threshold
    )


def write_target_scale(folder: RunFolder, scale: float, epsilon: float) -> None:
    """Keep the scale of a run's targets, if there is one, and the ε of the noise in it."""
    if scale:
        write_json(folder.path / TARGET_SCALE, {"scale": scale, "epsilon": epsilon or None})


def read_target_scale(folder: RunFolder) -> float:
    """Return the scale of a run's targets as its clients have summed it; 0 if they have not.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    if (path := record_path(folder, TARGET_SCALE)) is None:
        return 0.0
    scale = read_json(path).get("scale")
    if not isinstance(scale, float) or not 0 < scale < math.inf:
        raise RunCorrupt(f"{path}: damaged, expected a scale above 0")
    return scale


def write_scale(folder: RunFolder, scale: tuple[float, ...]) -> None:
    """Keep a run's scale, if it has one."""
    half = len(scale) // 2
    if scale:
        write_json(folder.path / SCALE, {"means": list(scale[:half]), "deviations": list(scale[half:])})


def read_scale(folder: RunFolder) -> tuple[float, ...]:
    """Return the scale of a run; empty if it has none.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    if (path := record_path(folder, SCALE)) is None:
        return ()
    found = read_json(path)
    numbers = [found.get(name) for name in ("means", "deviations")]
    lists = [part for part in numbers if isinstance(part, list) and all(isinstance(v, float) for v in part)]
    if len(lists) != 2 or len(lists[0]) != len(lists[1]):
        raise RunCorrupt(f"{path}: damaged, expected as many means as deviations")
    return (*lists[0], *lists[1])
