"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version as installed_version

DISTRIBUTION = "lethe-fl"
"""Its name on an index, where `lethe` is somebody else's."""


def version() -> str:
    """Return the version, or a word if Lethe runs from a bundle and is not installed."""
    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
