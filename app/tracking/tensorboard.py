"""TensorBoard: event files under ``track/tensorboard``, a folder for the run and one for each work on it."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import final

from torch.utils.tensorboard import SummaryWriter

from app.tracking.tracker import Tracked
from strategies.core.settings import Scalar

FOLDER = "tensorboard"


@final
class TensorBoard:
    """Writes scalars; what is no number is a text. A resumed run hides the steps that it takes again."""

    def __init__(self, tracked: Tracked) -> None:
        place = tracked.folder / FOLDER / ("train" if tracked.kind == "train" else tracked.name)
        purge = tracked.completed + 1 if tracked.completed else None
        is_new = not place.exists()
        self._writer = SummaryWriter(str(place), purge_step=purge)
        if is_new:
            rows = "\n".join(f"| {key} | {value} |" for key, value in tracked.config.items())
            self._text("config", f"| key | value |\n| --- | --- |\n{rows}")

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Write the figures of a step, for TensorBoard to see at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        """Write the results."""
        for name, value in {"outcome": outcome, **summary}.items():
            if isinstance(value, str):
                self._text(f"summary/{name}", value)
            else:
                self._writer.add_scalar(f"summary/{name}", value)
        self._writer.close()

    def _text(self, name: str, value: str) -> None:
        self._writer.add_text(name, value)


def begin(tracked: Tracked) -> TensorBoard:
    """Return the tracker of a piece of work."""
    hook = threading.excepthook
    if not (isinstance(hook, partial) and hook.func is _told):
        threading.excepthook = partial(_told, hook)
    return TensorBoard(tracked)


def _told(others: Callable[[threading.ExceptHookArgs], object], args: threading.ExceptHookArgs) -> None:
    """Print no traceback of TensorBoard's writing threads: the next call raises their error again."""
    if not type(args.thread).__module__.startswith("tensorboard."):
        others(args)
