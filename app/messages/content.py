"""A record dictionary that is freed with its last reference.

The views that Flower's `RecordDict` gives of its records (``content.array_records``) form a reference cycle:
every reply that was looked at stays in memory until the garbage collector runs. With models of many megabytes
that is most of the server's memory.
"""

from collections.abc import Callable
from typing import Any, TypeVar, final

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message.recorddict import RecordType
from flwr.app.message.typeddict import TypedDict

from strategies.core.wire import filled

R = TypeVar("R", bound=ArrayRecord | MetricRecord | ConfigRecord)


def _check_key(key: str) -> None:
    if not isinstance(key, str):
        raise TypeError(f"expected str for the key, got {type(key).__name__}")


def _checker(kind: type[Any]) -> Callable[[Any], None]:
    def check(value: object) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__} for the value, got {type(value).__name__}")

    return check


_CHECKERS: dict[type[Any], Callable[[object], None]] = {
    kind: _checker(kind) for kind in (ArrayRecord, MetricRecord, ConfigRecord)
}


@final
class _View(TypedDict[str, R]):
    """The records of one kind; setting or deleting one here also does so in the content."""

    def __init__(self, content: RecordDict, kind: type[R]) -> None:
        super().__init__(_check_key, _CHECKERS[kind])
        filled(self, {name: record for name, record in content.items() if isinstance(record, kind)})
        self._content = content

    def __setitem__(self, key: str, value: R) -> None:
        super().__setitem__(key, value)
        self._content[key] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._content[key]


@final
class Content(RecordDict):
    """Flower's `RecordDict`, of records by name, with views that form no cycle.

    What it is made of is not checked again.
    """

    def __init__(self, records: dict[str, RecordType]) -> None:
        super().__init__()
        filled(self, records)

    @property
    def array_records(self) -> TypedDict[str, ArrayRecord]:
        """The array records."""
        return _View(self, ArrayRecord)

    @property
    def metric_records(self) -> TypedDict[str, MetricRecord]:
        """The metric records."""
        return _View(self, MetricRecord)

    @property
    def config_records(self) -> TypedDict[str, ConfigRecord]:
        """The config records."""
        return _View(self, ConfigRecord)
