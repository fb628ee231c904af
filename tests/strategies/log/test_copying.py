"""strategies/log/copying.py: a copy holds what the log holds, and each lives without the other."""

from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput
from strategies.log.copying import copy_log
from strategies.log.update_log import UpdateLog
from tests.strategies.update_logs import HAND_WORKED, ONE, make_log, one


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_a_copy_goes_on_and_the_original_stays(tmp_path: Path, retention: str) -> None:
    """The sums of the hand-worked log are 1 and 2.5; a third round of b alone adds 4 to the copy."""
    log = make_log(tmp_path / "log", HAND_WORKED, retention)
    head = log.sha256()
    copy_log(log.path, tmp_path / "copy")
    with UpdateLog.open(tmp_path / "copy", write=True) as copy:
        assert copy.sha256() == head
        copy.begin_round(3)
        copy.add(3, "b", 1.0, 1, one(4.0), 4.0)
        copy.commit_round(3, True)
        assert copy.weighted_sum("b").tolist() == [6.5]
        copy.purge(["a"])
    assert log.sha256() == head
    assert log.weighted_sum("a").tolist() == [1.0]
    assert log.verify() == {}


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_client_is_left_out_of_the_copy(tmp_path: Path, encrypted: bool) -> None:
    keys = tmp_path / "keys" if encrypted else None
    with UpdateLog.create(tmp_path / "log", ONE, "full", keys=keys) as log:
        for server_round, (a, b) in enumerate([(2.0, 4.0), (1.0, -1.0)], start=1):
            log.begin_round(server_round)
            log.add(server_round, "a", 1.0, 1, one(a), abs(a))
            log.add(server_round, "b", 3.0, 3, one(b), abs(b))
            log.commit_round(server_round, server_round == 1)
    copy_log(log.path, tmp_path / "copy", ["a"], keys)
    copy = UpdateLog.open(tmp_path / "copy")
    assert set(copy.purged()) == {"a"}
    assert [(e.client_id, e.weight, e.norm) for e in copy.entries(1)] == [("a", 0.25, 0.0), ("b", 0.75, 4.0)]
    assert torch.equal(copy.weighted_sum("b"), log.weighted_sum("b"))
    assert copy.averaging_rounds() == [1]
    assert (copy.verify(), log.verify()) == ({}, {})
    if log.keys is not None and copy.keys is not None:
        assert log.keys.folder != copy.keys.folder
        assert not copy.keys.has("a")
        log.keys.destroy_all()
        assert copy.delta(2, "b").tolist() == [-1.0]


def test_encrypted_sums_cannot_be_written_anew(tmp_path: Path) -> None:
    UpdateLog.create(tmp_path / "log", ONE, "sum", keys=tmp_path / "keys").close()
    with pytest.raises(BadInput, match="encrypted and keeps sums only"):
        copy_log(tmp_path / "log", tmp_path / "copy", keys=tmp_path / "keys")
