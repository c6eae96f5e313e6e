"""Configs: frozen keyword-only dataclasses that make their part and travel as JSON."""

import dataclasses
import hashlib
import importlib
import json
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

from slm_jax.core.errors import UserError, nearest

FORMAT_VERSION = 1
RENAMED_TYPES: dict[str, str] = {
    "encoders.relative_bias.RelativeBiasConfig": "nn.relative_bias.RelativeBiasConfig",
    "objectives.masked_prediction.HubertPretrainingConfig": "encoders.ssl_pretraining.HubertPretrainingConfig",
    "serving.transcriber.Transcription": "generation.whisper_words.Transcription",
}
"""Old type path -> new one: a class that moves leaves an entry here, so that old checkpoints load."""
RENAMED_FIELDS: dict[str, dict[str, str]] = {"data.corpora.settings.TFDSConfig": {"rate_hz": "source_rate_hz"}}
"""Type path -> old field -> new one. A field is renamed where JSON lacks the new name."""

PACKAGE = "slm_jax."
C = TypeVar("C", bound="Config")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs. A subclass of a `Config` is a frozen keyword-only dataclass by itself, without a decorator.

    Fields hold numbers, strings, None, tuples and other configs. A config that describes a part has `make()`.
    """

    FREE: ClassVar[tuple[str, ...]] = ()
    """Fields that may take other values when work on the same thing goes on."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    def replace(self: C, **changes: Any) -> C:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with the type path below `slm_jax.` under `type`."""
        return _fields(self, ())

    def binding_json(self) -> dict[str, Any]:
        """`to_json` without the fields that are free, here and in the configs inside: what must agree to go on."""
        return _encode(self, binding=True)

    def content_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the JSON form: equal configs, equal hashes."""
        return content_hash(self.to_json())


def content_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def type_path(cls: type) -> str:
    """`quantizers.kmeans.KMeansConfig` for a class of this package; `module:Class` for one from elsewhere."""
    if cls.__module__.startswith(PACKAGE):
        return f"{cls.__module__.removeprefix(PACKAGE)}.{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def from_json(data: dict[str, Any]) -> Config:
    """The config that `Config.to_json` wrote; raises `UserError` for an unknown type or field."""
    cls = _resolve(data.get("type", ""))
    known = {f.name for f in dataclasses.fields(cls)}
    renamed = {old: new for old, new in RENAMED_FIELDS.get(type_path(cls), {}).items() if new not in data}
    given = {renamed.get(name, name): value for name, value in data.items() if name != "type"}
    for name in given:
        if name not in known:
            raise UserError(f"{data['type']} has no field {name!r}{nearest(name, known)}")
    return cls(**{name: _decode(value) for name, value in given.items()})


def load_config_file(path: str | Path) -> Config:
    """The object called `config` of a Python config file."""
    path = Path(path)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"config file {str(path)!r} does not exist{nearest(str(path), siblings)}")
    if path.suffix != ".py":
        raise UserError(f"config file {str(path)!r}: a config is a Python file that defines `config`")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, Config):
        raise UserError(
            f"config file {str(path)!r} must define `config`, a slm_jax Config; found {type(config).__name__}"
        )
    return config


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Leaf fields by dotted path, `optimizer.learning_rate` -> 3e-4."""
    items: Iterable[tuple[str, Any]]
    if isinstance(config, dict) and config:
        items = config.items()
    elif isinstance(config, list) and any(isinstance(item, dict) for item in config):
        items = ((str(i), item) for i, item in enumerate(config))
    else:
        return {prefix.removesuffix("."): config}
    return {path: leaf for name, value in items for path, leaf in flatten(value, f"{prefix}{name}.").items()}


def diff(old: Config, new: Config) -> list[str]:
    """Lines such as `optimizer.learning_rate: 0.001 -> 0.0003` for every field that differs."""
    before, after = flatten(old.to_json()), flatten(new.to_json())
    paths = sorted(before.keys() | after.keys())
    missing = "(absent)"
    return [
        f"{path}: {before.get(path, missing)} -> {after.get(path, missing)}"
        for path in paths
        if before.get(path, missing) != after.get(path, missing)
    ]


def _fields(config: Config, left_out: tuple[str, ...], binding: bool = False) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(config) if field.name not in left_out]
    return {"type": type_path(type(config)), **{name: _encode(getattr(config, name), binding) for name in names}}


def _encode(value: Any, binding: bool = False) -> Any:
    if isinstance(value, Config):
        return _fields(value, value.FREE, binding) if binding else value.to_json()
    if isinstance(value, tuple | list):
        return [_encode(item, binding) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a config field holds {type(value).__name__}: only numbers, strings, None, tuples and configs")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return from_json(value)
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return value


def _resolve(path: str) -> type[Config]:
    """The config class behind a type path; anything that is not a Config class is refused."""
    path = RENAMED_TYPES.get(path, path)
    if ":" in path:  # a class from outside is taken only when its module is loaded already: JSON never imports it
        module_name, _, name = path.partition(":")
        module = sys.modules.get(module_name)
    else:
        module_name, _, name = path.rpartition(".")
        try:
            module = importlib.import_module(PACKAGE + module_name)
        except ModuleNotFoundError:
            module = None
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, Config)):
        raise UserError(f"config type {path!r} is not known to this version of slm_jax")
    return cls
