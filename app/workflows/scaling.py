"""The scale of a table's columns that the clients have agreed on, and where a run keeps it.

The sums are those of the clients that were there when the run was begun. A retraining without one of them
keeps the scale: asking again would give the server two sums over nearly the same clients, whose difference is
the forgotten client's. The certificate says so.
"""

from app.config.run_config import RunConfig
from app.forgettings.folder import outermost
from strategies.analytics.asking import Sharing
from strategies.analytics.scaling import ask_scale
from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import SCALE, RunFolder
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


def write_scale(folder: RunFolder, scale: tuple[float, ...]) -> None:
    """Keep a run's scale."""
    half = len(scale) // 2
    write_json(folder.path / SCALE, {"means": list(scale[:half]), "deviations": list(scale[half:])})


def read_scale(folder: RunFolder) -> tuple[float, ...]:
    """Return the scale of a run; empty if it has none.

    Raises
    ------
    RunCorrupt
        If the file is damaged.
    """
    path = outermost(folder).path / SCALE
    if not path.exists():
        return ()
    found = read_json(path)
    numbers = [found.get(name) for name in ("means", "deviations")]
    lists = [part for part in numbers if isinstance(part, list) and all(isinstance(v, float) for v in part)]
    if len(lists) != 2 or len(lists[0]) != len(lists[1]):
        raise RunCorrupt(f"{path}: damaged, expected as many means as deviations")
    return (*lists[0], *lists[1])
