"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version as installed_version


def version() -> str:
    """Return the version, or a word if Lethe runs from a bundle and is not installed."""
    try:
        return installed_version("lethe")
    except PackageNotFoundError:
        return "(not installed)"
