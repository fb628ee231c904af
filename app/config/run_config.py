"""The run config: parsed once, at the edge, into one frozen object.

A run config is flat: keys ``section.name`` with scalar values, the same in a TOML file, on the command line
and in ``[tool.flwr.app.config]``, from which Flower passes it to the apps.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from app.config.names import check_method_name, check_strategy_name, nearest_key
from app.config.rules import check_contradictions
from app.config.settings import DataSettings, ModelSettings, RequestSettings, RunSettings
from app.config.staged import AttackSettings, HardSettings
from strategies.analytics.settings import AnalyticsSettings
from strategies.client.settings import TrainSettings
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings, hyphenated
from strategies.layers.compression.settings import CompressionSettings
from strategies.layers.privacy.settings import PrivacySettings
from strategies.log.settings import LogSettings
from strategies.runs.files import text_of
from strategies.runs.home import MARKER
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from strategies.tasks.settings import TaskSettings
from unlearning.registry import names, settings_of
from unlearning.settings import FLAT, AuditSettings, ForgetSettings, owners, renamed

_METHODS = "forget."
PLACE_KEYS = frozenset({"run.name", "run.home"})
"""Keys that say where a run lies, in which any two runs differ."""
RETIRED = frozenset({"audit.mia-c"})
"""Keys that runs made by earlier versions have in their config, and that nothing reads any more."""


class RunConfig(BaseModel):
    """Every setting of a run; made without arguments, the defaults.

    A section's fields are described in its class. Build one with ``from_flat``, ``from_toml`` or ``resolve``,
    which raise ``BadInput`` for whatever is wrong with the input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    task: TaskSettings = TaskSettings()
    train: TrainSettings = TrainSettings()
    strategy: StrategySettings = StrategySettings()
    privacy: PrivacySettings = PrivacySettings()
    compression: CompressionSettings = CompressionSettings()
    selection: SelectionSettings = SelectionSettings()
    log: LogSettings = LogSettings()
    attack: AttackSettings = AttackSettings()
    hard: HardSettings = HardSettings()
    forget: ForgetSettings = ForgetSettings()
    audit: AuditSettings = AuditSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    request: RequestSettings = RequestSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        defaults = default_values()
        check_strategy_name(self.strategy.name)
        check_contradictions(self.to_flat(), defaults)
        check_method_name(self.forget.method)
        return self

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in type(self).model_fields))

    def __hash__(self) -> int:
        """Hash all keys, once: clients look up what they keep by their config, several times per message."""
        return self._hash

    @classmethod
    def from_flat(cls, mapping: Mapping[str, Scalar]) -> Self:
        """Build from values by flat key; a key that is absent keeps its default.

        Raises
        ------
        BadInput
            For an unknown key, a wrong type, a value out of range, or keys that contradict each other: one
            line that names the key, what was given and what is allowed.

        Examples
        --------
        >>> RunConfig.from_flat({"train.local-epochs": 2}).train.local_epochs
        2
        """
        for key, value in mapping.items():
            check_key(key, value)
        return cls.model_validate({name: _section(name, mapping) for name in cls.model_fields})

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Build from a TOML file whose keys are nested in tables, dotted, or both.

        Raises
        ------
        BadInput
            If the file cannot be read, is not TOML, or holds what ``from_flat`` refuses.
        """
        return cls.from_flat(read_toml(path))

    @classmethod
    def resolve(cls, path: Path | None = None, overrides: Sequence[str] = ()) -> Self:
        """Build from defaults, then a TOML file, then ``section.key=value`` overrides, the later winning.

        The result is checked once, as a whole. Raises `BadInput` as ``from_toml`` and ``with_overrides`` do.
        """
        given = {} if path is None else read_toml(path)
        return cls.from_flat(given | parse_overrides(overrides))

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """Return a copy with some keys replaced by ``section.key=value`` overrides.

        The value is a TOML scalar; anything else is taken as text, as is every value of a key that holds
        text, so quotes are never needed.

        Raises
        ------
        BadInput
            If an override has no ``=``, or the result is one that ``from_flat`` refuses.

        Examples
        --------
        >>> RunConfig().with_overrides(["run.seed=7", "run.name=first"]).run.name
        'first'
        """
        return self.from_flat(self.to_flat() | parse_overrides(overrides))

    @property
    def data_seed(self) -> int:
        """Seed of what is drawn of the data: ``data.seed``, else that of the run."""
        return self.run.seed if self.data.seed < 0 else self.data.seed

    def to_flat(self) -> dict[str, Scalar]:
        """Return every key with its value, in the order of the sections."""
        return dict(flattened(self.model_dump(by_alias=True)))

    def to_toml(self) -> str:
        """Return every key with its value as a TOML document that ``from_toml`` reads back."""
        return tomli_w.dumps(self.model_dump(by_alias=True))


@cache
def known_fields() -> dict[str, FieldInfo]:
    """Return the pydantic field of every key of the run config except those of single forgetting methods."""
    return {
        f"{section}.{hyphenated(name)}": field
        for section, settings in _sections().items()
        for name, field in settings.model_fields.items()
        if not field.exclude
    }


@cache
def method_fields(method: str) -> dict[str, FieldInfo]:
    """Return the pydantic field of every key of a forgetting method's own."""
    fields = settings_of(method).model_fields.items()
    return {f"{_METHODS}{method}.{hyphenated(name)}": field for name, field in fields}


def field_of(key: str) -> FieldInfo | None:
    """Return the pydantic field behind a key; None if the key is unknown."""
    method = method_in(key)
    return method_fields(method).get(key) if method else known_fields().get(key)


def keys_beginning(text: str) -> list[str]:
    """Return the keys that begin with a text; those of a method only if the text names it."""
    method = method_in(text)
    known = method_fields(method) if method else known_fields()
    return [key for key in known if key.startswith(text)]


def method_in(key: str) -> str:
    """Return the forgetting method that a key belongs to; empty if none."""
    name, dot, _ = key.removeprefix(_METHODS).partition(".")
    return name if dot and key.startswith(_METHODS) and name in names() else ""


@cache
def default_values() -> dict[str, Scalar]:
    """Return the default of every key of the run config."""
    return {key: field.default for key, field in known_fields().items()}


def _sections() -> dict[str, type[Settings]]:
    return {name: type(field.default) for name, field in RunConfig.model_fields.items()}


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's values by dotted key; retired keys are dropped from a run's own config.

    Raises
    ------
    BadInput
        If the file cannot be read or is not TOML.
    """
    try:
        document = tomllib.loads(text_of(path.read_bytes()))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from error
    retired = RETIRED if (path.parent / MARKER).exists() else ()
    values = {key: value for key, value in flattened(document) if key not in retired}
    return _with_methods(values) if retired else values


def _with_methods(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's keys, with the keys that all methods shared in version 0.1 given to each of them."""
    flat = {key: value for key, value in values.items() if key.removeprefix(_METHODS) in FLAT}
    rest = {key: value for key, value in values.items() if key not in flat}
    own = renamed({key.removeprefix(_METHODS): value for key, value in flat.items()})
    return rest | dict(flattened(own, _METHODS))


def flattened(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the values of nested tables by dotted key."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def parse_overrides(overrides: Iterable[str]) -> dict[str, Scalar]:
    """Return the values of ``section.key=value`` texts by key; of a key given twice, the last.

    Raises
    ------
    BadInput
        If a text has no ``=``.
    """
    values: dict[str, Scalar] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise BadInput(f"override {shown(override)}: has no '=', allowed is section.key=value")
        values[key.strip()] = _override_value(key.strip(), text.strip())
    return values


def _override_value(key: str, text: str) -> Scalar:
    value = _toml_scalar(text)
    field = field_of(key)
    holds_text = field is not None and isinstance(field.default, str) and not is_union(field)
    return text if value is None or (holds_text and not isinstance(value, str)) else value


def _toml_scalar(text: str) -> Scalar | None:
    try:
        document = tomllib.loads(f"value = {text}")
    except ValueError:
        return None
    value = document.pop("value")
    return value if not document and isinstance(value, int | float | str) else None


def check_key(key: str, value: object) -> None:
    """Refuse a key that is not known, with the one that was probably meant."""
    if field_of(key) is None:
        known = _known_beside(key)
        name = key if key.isprintable() else shown(key)
        if flat := [f"{_METHODS}{m}.{k}" for m, k in _current_names(key)]:
            raise BadInput(f"{name}: unknown key, each method has its own; known keys: {', '.join(flat)}")
        near = nearest_key(key, known)
        advice = f"did you mean {near!r}?" if near else _neighbours(key, known)
        given = "" if value == key else f", given {shown(value)}"
        raise BadInput(f"{name}: unknown key{given}; {advice}")


def check_value(key: str, value: Scalar) -> None:
    """Refuse a value that a known key does not take, whatever the other keys are."""
    _section(key.partition(".")[0], {key: value})
    if key == "strategy.name":
        check_strategy_name(str(value))


def _known_beside(key: str) -> Iterable[str]:
    """Return the keys among which one was probably meant: those of a method that is named, or nearly."""
    method, dot, _ = key.removeprefix(_METHODS).partition(".")
    near = difflib.get_close_matches(method, names(), n=1) if dot and key.startswith(_METHODS) else []
    return method_fields(near[0]) if near else known_fields()


def _current_names(key: str) -> Iterable[tuple[str, str]]:
    """Return the methods that have a key that all shared in version 0.1, with their name for it."""
    flat = key.removeprefix(_METHODS)
    return owners(flat) if key.startswith(_METHODS) and flat in FLAT else ()


def _neighbours(key: str, known: Iterable[str]) -> str:
    """Return the keys of the key's section, or the sections if it has none."""
    section = key.partition(".")[0]
    near = [name for name in known if name.startswith(f"{section}.")]
    return f"known keys: {', '.join(near)}" if near else f"known sections: {', '.join(_sections())}"


def _section(section: str, mapping: Mapping[str, Scalar]) -> Settings:
    prefix = f"{section}."
    values = {key.removeprefix(prefix): value for key, value in mapping.items() if key.startswith(prefix)}
    for method in {method_in(prefix + key): None for key in values}:
        if method:
            own = {
                name: value
                for key, value in values.items()
                if (name := key.removeprefix(f"{method}.")) != key
            }
            _valid(f"{prefix}{method}.", settings_of(method), own)
    return _valid(prefix, _sections()[section], values)


def _valid(prefix: str, kind: type[Settings], values: Mapping[str, Scalar]) -> Settings:
    """Return settings of a class; if it refuses them, name the key, what was given, what is allowed."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(_explained(prefix, error.errors()[0])) from error


def _explained(prefix: str, error: ErrorDetails) -> str:
    key = f"{prefix}{error['loc'][0]}"
    complaint, field = error.get("ctx", {}).get("error"), field_of(key)
    allowed = str(complaint) if complaint is not None or field is None else allowed_values(field)
    return f"{key}: given {shown(error['input'])}, allowed {allowed}"


def is_union(field: FieldInfo) -> bool:
    """Whether a field takes a word in place of a number."""
    return get_origin(field.annotation) is Union or isinstance(field.annotation, UnionType)


def allowed_values(field: FieldInfo) -> str:
    """Return the values a field takes, in words.

    >>> allowed_values(known_fields()["selection.fraction"])
    'a number > 0 and <= 1'
    """
    if is_union(field):
        number, word = map(FieldInfo.from_annotation, get_args(field.annotation))
        return f"{get_args(word.annotation)[0]}, or {allowed_values(number)}"
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(get_args(field.annotation))}"
    if field.annotation is str:
        return "text that is not empty" if field.metadata else "text"
    if field.annotation is bool:
        return "true or false"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in signs.items()
        if hasattr(limit, name)
    ]
    kind = "an integer" if field.annotation is int else "a number"
    return f"{kind} {' and '.join(bounds)}".rstrip()
