"""benchmarks/log.py, small: every kind of log is written by real rounds, and its cost is counted."""

from benchmarks import BENCHMARKS
from benchmarks.jobs import NUM_PARAMETERS
from benchmarks.log import KINDS
from strategies.log.retention import DTYPES

BYTES = dict(zip(DTYPES, (4, 2, 2), strict=True))


def test_every_kind_of_log_is_measured() -> None:
    """Three clients take one step in one round; an update takes as many bytes as its precision says."""
    found = BENCHMARKS["log"](num_clients=3, rounds=1, steps=1, workers=1)
    rows = {(row["retention"], row["dtype"]): row for row in found["results"]}
    assert list(rows) == list(KINDS)
    assert found["model-bytes"] == 4 * NUM_PARAMETERS
    for (_, dtype), row in rows.items():
        assert row["server-seconds"] > 0
        size = NUM_PARAMETERS * BYTES[dtype]
        assert size < row["bytes-per-client-and-round"] < 1.01 * size
