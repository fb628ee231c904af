"""The error classes of the whole project: few, and each says what came, what was expected and what to do."""


class LetheError(Exception):
    """Something failed while the work was being done (exit status 1)."""


class BadInput(LetheError):
    """The user asked for something that cannot be served (exit status 2); nothing was changed.

    The message is one line: what was given, what is allowed.
    """


class RunCorrupt(LetheError):
    """A file of a run folder fails its checks; the message names the file."""
