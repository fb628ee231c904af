"""The error classes of the whole project: few, and each says what came, what was expected and what to do."""


class LetheError(Exception):
    """Something failed while the work was being done (exit status 1)."""

    @property
    def unnamed(self) -> str:
        """What may be said of the error where its text must not leave: it may quote data, or name files."""
        return withheld(self)


class BadInput(LetheError):
    """The user asked for something that cannot be served (exit status 2); nothing was changed.

    The message is one line: what was given, what is allowed.
    """


class SettingsRefused(BadInput):
    """The settings of two sides do not go together; the message holds settings alone, and never data."""

    @property
    def unnamed(self) -> str:
        """The whole message."""
        return str(self)


class RunCorrupt(LetheError):
    """A file of a run folder fails its checks; the message names the file."""


def kind_of(error: BaseException) -> str:
    """Return the nearest class of an error that Python or this project defines: one of a fixed list.

    Examples
    --------
    >>> kind_of(KeyError("patient 4711")), kind_of(type("Patient", (ValueError,), {"__module__": "ward"})())
    ('KeyError', 'ValueError')
    """
    known = {"builtins", __name__}
    return next(each.__name__ for each in type(error).__mro__ if each.__module__ in known)


def withheld(error: BaseException) -> str:
    """Return a line on an error without its text."""
    return f"{kind_of(error)}; the text stays in the log of the client, whose data are protected"
