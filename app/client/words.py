"""What a client says of its errors: all where it was promised nothing, else nothing that may quote data.

The text of an exception may hold a value of the data, a name of a column or a path. Where data are protected,
a fixed line goes to the server in its place, and the text, with the traceback, to the client's own log.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from app.client.node import Node
from strategies.core.errors import LetheError, withheld

_logged: set[str] = set()


@contextmanager
def guarded(node: Node) -> Iterator[None]:
    """Replace whatever is raised by what may be said of it, if the client's data are protected.

    Raises
    ------
    LetheError
        In place of another exception.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # Whatever is raised is sent to the server
        if not node.protects_data:
            raise
        line = error.unnamed if isinstance(error, LetheError) else withheld(error)
        if line != str(error):
            log(node, error)
        raise LetheError(line) from None  # A chained exception would be part of the traceback that Ray sends


def said(node: Node, error: LetheError) -> str:
    """Return what a client tells the server of an error; the text that it keeps back goes to its log."""
    if not node.protects_data:
        return str(error)
    if error.unnamed != str(error):
        log(node, error)
    return error.unnamed


def log(node: Node, error: BaseException) -> None:
    """Write an error to the client's own log, the first time that a place fails with its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    line = f"client {node.client_id}: {type(error).__name__}: {error}"
    if place in _logged:
        sys.stderr.write(f"{line}\n")
        return
    _logged.add(place)
    sys.stderr.write("\n".join([line, *traceback.format_exception(error)]))
