"""The names of the files that forgettings leave, and of the record of where a run comes from."""

from strategies.core.errors import BadInput

RESULT = "result.json"
"""Name of the file with the costs and notes of a forgetting."""
AUDIT = "audit.json"
"""Name of the file with the results of an audit."""
CERTIFICATE = "certificate.json"
"""Name of the file with the signed certificate."""
SUSPECTS = "suspects.json"
"""Name of the file in a run's folder that ranks its clients by how bad they look."""
ORIGIN = "origin.json"
"""Name of the file in the folder of a run that comes from another."""


def parsed_place(given: str) -> tuple[str, str]:
    """Return run and forgetting that a text such as ``first/forget/client-3-subtract`` names.

    >>> parsed_place("runs/first/forget/client-3-subtract/"), parsed_place("first")
    (('runs/first', 'client-3-subtract'), ('first', ''))
    """
    whole = given.rstrip("/")
    run, between, name = whole.rpartition("/forget/")
    if not between:
        return whole or given, ""
    if not run or "/" in name:
        raise BadInput(f"'{given}': expected a run, or RUN/forget/NAME")
    return run, name
