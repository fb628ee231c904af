"""Libraries that Lethe does without: the extra of the distribution that brings each, and what to say."""

DISTRIBUTION = "lethe-fl"
"""Its name on an index. With it installed, from wherever, this adds what an extra asks for."""


def not_installed(library: str, extra: str) -> str:
    """Return what to say of a library that is not there.

    Examples
    --------
    >>> not_installed("onnx", "onnx")
    "onnx is not installed: pip install 'lethe-fl[onnx]'"
    """
    return f"{library} is not installed: pip install '{DISTRIBUTION}[{extra}]'"
