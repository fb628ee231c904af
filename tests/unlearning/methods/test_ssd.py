"""unlearning/methods/ssd.py: importances over clients are those of the same examples in one place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from strategies.core import wire
from strategies.core.errors import LetheError
from tests.unlearning.methods.slow import (
    CLASS,
    CLIENT,
    REQUESTS,
    federation_of,
    flat_of,
    forgotten,
    loss_on,
    model_at,
    part_of_all,
)
from unlearning.central.ssd import ssd
from unlearning.methods.ssd import ACTION
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.traits.ssd import SsdSettings

ONE = {"alpha": 1.1, "dampening": 0.5}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_same_examples_in_one_place(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    forget, retain = part_of_all(federation, request_)
    found = forgotten("ssd", run, federation, request_, **ONE)
    central = ssd(model_at(federation, run.final), retain, forget, SsdSettings.model_validate(ONE))
    torch.testing.assert_close(found.flat, flat_of(federation, central))
    changed = int((found.flat != run.final).sum())
    assert found.details == {**ONE, "dampened": changed}
    assert 0 < changed < len(found.flat)


def test_the_loss_on_a_forgotten_class_rises(run: TrainedRun) -> None:
    federation = federation_of()
    goes, stays = part_of_all(federation, CLASS)
    found = forgotten("ssd", run, federation, CLASS, alpha=1.5).flat
    rises = [
        loss_on(federation, found, part) - loss_on(federation, run.final, part) for part in (goes, stays)
    ]
    assert rises[0] > max(0, rises[1])


def test_one_visit_in_any_order(run: TrainedRun) -> None:
    federation, backwards = federation_of(), federation_of().but(backwards=True)
    found = forgotten("ssd", run, federation, CLIENT, **ONE)
    assert found.flat.equal(forgotten("ssd", run, backwards, CLIENT, **ONE).flat)
    assert [a for a in federation.asked if a[0] == ACTION] == [(ACTION, i) for i in "0123"]


def test_a_threshold_that_nothing_reaches_is_said(run: TrainedRun) -> None:
    found = forgotten("ssd", run, federation_of(), CLIENT, alpha=100)
    assert found.flat.equal(run.final)
    assert "no weight matters 100 times as much to the forgotten data: unchanged" in found.notes


def test_pruned_weights_stay_zero(run: TrainedRun) -> None:
    mask = torch.arange(run.layout.size) % 3 != 0
    pruned = replace(run, mask=mask, final=run.final * mask)
    found = forgotten("ssd", pruned, federation_of(), CLIENT, **ONE).flat
    assert not found[~mask].any()
    assert not found.equal(pruned.final)


def test_without_the_client_that_leaves_there_is_nothing_to_compare(run: TrainedRun) -> None:
    with pytest.raises(LetheError, match="ssd: no client answered usefully that holds what is to be"):
        forgotten("ssd", run, federation_of().but(failing={"2": (ACTION,)}), CLIENT)


def test_a_sum_that_is_not_finite_is_left_out(run: TrainedRun) -> None:
    """Of client 0, which lies: as if it had failed."""

    def spoiled(client_id: str, kind: str, content: RecordDict) -> RecordDict:
        if client_id == "0" and kind == ACTION:
            bad = Array(np.full(run.layout.size, np.nan))
            content[wire.ARRAYS] = ArrayRecord({"forget": bad, "retain": bad})
        return content

    lies, fails = (
        forgotten("ssd", run, federation, CLIENT, **ONE)
        for federation in (federation_of().but(change=spoiled), federation_of().but(failing={"0": (ACTION,)}))
    )
    assert lies.flat.equal(fails.flat)
    assert lies.warnings[0].startswith("client 0 failed in ")
