"""app/config/catalogue.py: what is listed is what the registries hold."""

from app.config.catalogue import DATA, KINDS, MODELS, TASKS, entries
from app.config.settings import BUILT_IN_MODELS, MODEL_LIBRARIES
from app.data import sources
from app.data.own import OWN_KINDS
from app.models import built_in
from strategies.tasks import choice


def test_what_is_listed_is_what_can_be_named() -> None:
    known = {*sources._VISION, *sources._MADE, *OWN_KINDS}
    assert {name.partition(":")[0] for name in DATA} == known
    assert set(MODELS) == {*BUILT_IN_MODELS, *(f"{library}:NAME" for library in MODEL_LIBRARIES)}
    assert set(BUILT_IN_MODELS) == set(built_in._BUILDERS)
    assert set(TASKS) == {"auto", *choice._BUILDERS}


def test_every_entry_has_one_short_line() -> None:
    found = [entry for kind in KINDS for entry in entries(kind)]
    assert all(0 < len(entry.summary) <= 110 and "`" not in entry.summary for entry in found)
