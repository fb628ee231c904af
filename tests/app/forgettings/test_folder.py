"""app/forgettings/folder.py: names of forgettings, and how they are found again."""

from pathlib import Path

import pytest

from app.forgettings.folder import forgetting_name, outermost, read_forgetting, runs_in
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2
from unlearning.request import ForgetRequest


def test_names_tell_what_was_forgotten_in_which_order() -> None:
    first = forgetting_name(CLIENT_2, "distill")
    assert first == "client-2-distill"
    assert (
        forgetting_name(ForgetRequest(classes=(7,)), "finetune", first) == "client-2-distill+class-7-finetune"
    )


def test_a_long_sequence_has_a_name_that_the_disk_takes() -> None:
    """And two of them that differ in the first request have two names."""
    names = []
    for start in ("0", "1"):
        name = forgetting_name(ForgetRequest(clients=(start,)), "fast-fedul")
        for client_id in range(2, 40):
            name = forgetting_name(ForgetRequest(clients=(str(client_id),)), "fast-fedul", name)
            assert len(name) <= 130
        names.append(name)
    assert names[0] != names[1]


def test_an_answer_is_read_back(small: RunFolder) -> None:
    answer = read_forgetting(small, "client-2-subtract")
    assert (answer.request, answer.method, answer.after, answer.forgotten) == (CLIENT_2, "subtract", "", ())
    assert answer.model_path.exists()
    assert answer.seconds > 0


def test_an_unknown_answer_names_the_known_ones(small: RunFolder) -> None:
    with pytest.raises(
        BadInput, match=r"run 'small': no forgetting 'client-1-subtract'; known: client-2-sub"
    ):
        read_forgetting(small, "client-1-subtract")


@pytest.mark.parametrize("name", ["..", "../..", "a/b", ""])
def test_no_name_leads_out_of_the_folder(small: RunFolder, name: str) -> None:
    with pytest.raises(BadInput):
        read_forgetting(small, name)


def test_runs_lie_in_runs(tmp_path: Path) -> None:
    """A pruned run with another seed in it; a folder beside them is none."""
    outer = RunFolder.create(tmp_path, "outer", "")
    pruned = RunFolder.create(outer.path / "pruned", "omp-0.9", "")
    inner = RunFolder.create(pruned.path / "seeds", "1", "")
    (outer.path / "other" / "folder").mkdir(parents=True)
    for run in (outer, pruned, inner):
        assert outermost(run).path == outer.path
    assert {run.path for run in runs_in(outer)} == {outer.path, pruned.path, inner.path}
    assert outermost(RunFolder(outer.path / "pruned" / "not-made-yet")).path == outer.path
