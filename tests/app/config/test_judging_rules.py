"""app/config/judging_rules.py: a round is judged on examples that no report is about."""

import pytest

from app.config.run_config import RunConfig
from strategies.core.errors import BadInput

SHARE = "data.validation-share=0.2"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.keep=best"], r'run\.keep: given "best", but data\.validation-share is 0'),
        (["run.stop=3"], r"run\.stop: given 3, but data\.validation-share is 0"),
        (["run.keep=worst", SHARE], r"run\.keep: given \"worst\", allowed one of last, best"),
        (["run.stop=-1", SHARE], r"run\.stop: given -1, allowed an integer >= 0"),
        (["run.keep-by=loss", SHARE], r"run\.keep-by: .*only with run\.keep"),
        (
            [SHARE, "model.name=resnet18", "model.batch-norm=local"],
            r"data\.validation-share: .*no whole model",
        ),
        (["run.keep=best", SHARE, "strategy.name=fedmd"], r"run\.keep: .*a strategy that trains one model"),
        (["request.rounds=3"], r'request\.rounds: .*run\.workflow = "continue"'),
        (["run.workflow=continue"], r"request\.run: given \"\", must name a run"),
    ],
)
def test_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RunConfig().with_overrides(overrides)


def test_allowed() -> None:
    kept = RunConfig().with_overrides(["run.keep=best", "run.stop=2", "run.keep-by=loss", SHARE])
    assert (kept.run.keep, kept.run.stop) == ("best", 2)
    assert RunConfig().with_overrides([SHARE]).data.validation_share == 0.2  # To compare with such a run
