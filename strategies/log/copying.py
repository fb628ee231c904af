"""A copy of an update log for a run that goes on from another: what was logged, and room for more.

A log that is not encrypted is copied byte for byte, so that the chain of the copy goes on from that of the
original. An encrypted one is encrypted anew with keys of its own: destroying those of one log must leave the
other readable.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

import torch

from strategies.core.errors import BadInput
from strategies.log.lock import LOCK
from strategies.log.update_log import UpdateLog
from strategies.runs.files import not_written


def copy_log(source: Path, target: Path, without: Collection[str] = (), keys: Path | None = None) -> None:
    """Copy a log into a folder that is not there, without the updates of some clients.

    Parameters
    ----------
    without
        Clients that are purged from the copy.
    keys
        Folder for the keys of the copy, if the log is encrypted.

    Raises
    ------
    BadInput
        If the log is encrypted and its updates cannot be read, or it holds sums only.
    LetheError
        If the disk does not take the copy.
    """
    with UpdateLog.open(source) as log:
        if log.is_encrypted:
            _copied_anew(log, target, without, keys)
            return
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(LOCK))
    except OSError as error:
        raise not_written(target, error) from error
    with UpdateLog.open(target, write=True) as made:
        made.purge(without)


def _copied_anew(log: UpdateLog, target: Path, without: Collection[str], keys: Path | None) -> None:
    if log.retention.kind == "sum":
        raise BadInput(
            "update log: it is encrypted and keeps sums only, which cannot be written anew without the "
            "single updates; go on from a run with log.encrypted = false or another log.retention"
        )
    gone = {*without, *log.purged()}
    averaging = set(log.averaging_rounds())
    nothing = torch.zeros(log.layout.size)
    with UpdateLog.create(target, log.layout, str(log.retention), log.dtype, keys) as made:
        for server_round in log.rounds():
            made.begin_round(server_round)
            for entry in log.entries(server_round):
                kept = log.retention.keeps(server_round) and entry.client_id not in gone
                update = log.delta(server_round, entry.client_id) if kept else nothing
                made.add(server_round, entry.client_id, entry.weight, entry.num_examples, update, entry.norm)
            made.commit_round(server_round, server_round in averaging, lambda share: 1.0)
        made.purge(gone)
