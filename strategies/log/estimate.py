"""How many bytes an update log will take, before a run begins."""

from dataclasses import dataclass, replace

from strategies.log.retention import Retention

_ENTRY_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_HEADER_BYTES = 256
"""Of each file."""
_SUMS_KEPT = 2
"""Under retention ``sum`` the sums of the last round and those that they replace lie side by side."""


@dataclass(frozen=True)
class LogEstimate:
    """What decides the size of a log.

    Parameters
    ----------
    size
        Entries of an update.
    clients
        How many there are.
    per_round
        How many of them take part in a round, at most.
    rounds
        How many.
    """

    size: int
    clients: int
    per_round: int
    rounds: int

    def update_bytes(self, dtype: str) -> int:
        """Return the bytes of one update's file."""
        return self.size * _ENTRY_BYTES[dtype] + _HEADER_BYTES

    def log_bytes(self, retention: str, dtype: str = "float32") -> int:
        """Return the bytes of the whole log at its largest.

        Examples
        --------
        >>> run = LogEstimate(size=2_500_000, clients=1_000, per_round=1_000, rounds=100)
        >>> [round(run.log_bytes(kept) / 1e9) for kept in ("full", "interval:10", "sum")]
        [1000, 100, 30]
        """
        kept = Retention.parse(retention)
        if kept.kind == "sum":
            sums = _SUMS_KEPT * min(self.clients, self.per_round * self.rounds)
            return (sums + self.per_round) * self.update_bytes(
                "float32"
            )  # A round's updates wait beside them
        rounds = -(-self.rounds // kept.every)
        return rounds * self.per_round * self.update_bytes(dtype)

    def bytes_after(self, done: int, retention: str, dtype: str = "float32") -> int:
        """Return the bytes that the log will take beyond what lies there after `done` rounds.

        Examples
        --------
        >>> run = LogEstimate(size=2_500_000, clients=1_000, per_round=1_000, rounds=100)
        >>> [round(run.bytes_after(50, kept) / 1e9) for kept in ("full", "interval:10", "sum")]
        [500, 50, 20]
        """
        if Retention.parse(retention).kind == "sum":
            there = min(self.clients, self.per_round * done) * self.update_bytes("float32")
        else:
            there = replace(self, rounds=done).log_bytes(retention, dtype)
        return self.log_bytes(retention, dtype) - there

    def fitting(self, free: int, dtype: str = "float32") -> list[str]:
        """Return the retentions that fit into some bytes, those that keep most first.

        These are ``interval:<k>`` with the smallest k, which FedEraser can use, and ``sum``, with which
        updates can be subtracted.

        Examples
        --------
        >>> LogEstimate(2_500_000, 1_000, 1_000, 100).fitting(61_000_000_000)
        ['interval:17', 'sum']
        """
        one_round = self.per_round * self.update_bytes(dtype)
        most_rounds = free // one_round
        intervals = [f"interval:{-(-self.rounds // most_rounds)}"] if most_rounds else []
        kept = [text for text in (*intervals, "sum") if self.log_bytes(text, dtype) <= free]
        return ["full", *kept] if self.log_bytes("full", dtype) <= free else kept
