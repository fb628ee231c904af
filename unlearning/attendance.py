"""Which clients failed while a request was served, and what that means for the result."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from strategies.core import wire
from strategies.server.cohort import Cohort, Fault


class Attendance:
    """Counts how a cohort's clients answer from here on."""

    def __init__(self, cohort: Cohort) -> None:
        self._cohort = cohort
        self._known_faults = len(cohort.faults)
        self._turns_before = cohort.turns.copy()

    def warnings(self, named: Collection[str]) -> list[str]:
        """Return a line for each client whose failures may have spoilt the result.

        These are the clients that failed always, and those `named` in the request that failed at all; clients
        without data left do not count.
        """
        return [
            f"client {i}, of the request, failed in {share} ({reason}): what only it could do to have the "
            "data forgotten may not have been done"
            if i in named
            else f"client {i} failed in {share} ({reason}): no answer of it is in the result"
            for i, share, reason, always in self._failures()
            if (always or i in named) and wire.NOTHING_LEFT not in reason
        ]

    def notes(self, named: Collection[str], known: Sequence[str] = ()) -> list[str]:
        """Return a line for each other client that failed, unless a line in `known` is about it."""
        return [
            f"client {i} took no part: {wire.NOTHING_LEFT}"
            if wire.NOTHING_LEFT in reason
            else f"client {i} failed in {share}: {reason}"
            for i, share, reason, always in self._failures()
            if wire.NOTHING_LEFT in reason
            or not (always or i in named or any(line.startswith(f"client {i} ") for line in known))
        ]

    def _failures(self) -> Iterator[tuple[str, str, str, bool]]:
        """Yield client-id, how often it failed, its first reason, and whether it always failed."""
        faults: list[Fault] = self._cohort.faults[self._known_faults :]
        failed = Counter(fault.client_id for fault in faults)
        reasons = {fault.client_id: fault.reason for fault in reversed(faults)}
        for client_id in sorted(failed.keys() & self._cohort.clients.keys(), key=wire.client_sort_key):
            turns = max(failed[client_id], self._cohort.turns[client_id] - self._turns_before[client_id])
            share = f"{failed[client_id]} of {turns} visits"
            yield client_id, share, reasons[client_id], failed[client_id] == turns
