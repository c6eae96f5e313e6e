"""LoRA adapters in the file form of the `peft` package, in and out.

FOLDER/
  adapter_config.json          rank, alpha, which modules
  adapter_model.safetensors    `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` ...

The names are those of the base's family: its table says which of its modules is which layer of ours.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.checkpoints.whole_folder import whole_folder
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import (
    MappingError,
    export_params,
    export_shapes,
    import_params,
    nested,
    renamed,
    resolve,
)
from slm_jax.interop.families import family_for, family_named
from slm_jax.interop.family import Family
from slm_jax.interop.readers import open_weights
from slm_jax.interop.safetensors import write_safetensors
from slm_jax.interop.table import LAYER, Rule, Table, rule
from slm_jax.interop.transforms import Dense
from slm_jax.nn.lora import LoRAConfig, lora_initialise
from slm_jax.sequence_models.decoder_config import DecoderConfig

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model", "base_model.model."
READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "peft_type", "bias", "init_lora_weights"}
SILENT = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
"""Fields that change nothing once the tensors are known: those say themselves which modules and layers there are."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that move the base's weights as well."""


def load_peft(
    folder: str | Path, base: Config, name: str = "default", family: str | None = None
) -> tuple[LoRAConfig, dict[str, Any]]:
    """An adapter for the model of `base`: its config, and the collection `lora` as nested dicts of NumPy arrays.

    `family`: whose names are read; the first that can say `base` unless given. Raises `UserError` for a field that we
    can't honour, `MappingError` listing every tensor that has no place, every place left empty, every wrong shape.
    """
    folder = Path(folder)
    fields = read_fields(folder)
    files = [folder / f"{WEIGHTS}{end}" for end in (".safetensors", ".bin") if (folder / f"{WEIGHTS}{end}").is_file()]
    require(bool(files), "adapter folder", str(folder), f"holds no {WEIGHTS}.safetensors and no {WEIGHTS}.bin")
    source, own = open_weights(files[0]), _family(base, family)
    table = adapter_table(own.table(base, own.spellings[0]), name)
    modules = {re.sub(r"\.lora_[AB]\.weight$", "", renamed(table, tensor)) for tensor in source.shapes}
    places = [place for rule, place in _places(table, name) if _any_layer(rule.sources[0], modules)]
    targets = _abstract(own.abstract(base), table, places, name, fields["r"])
    try:
        plan = resolve(table, source.shapes, targets, source.dtypes)
    except MappingError as error:
        raise MappingError(error.faults, f"{files[0]} is no adapter of this {own.name}") from None
    config = LoRAConfig(
        targets="|".join(places),
        rank=fields["r"],
        alpha=float(fields["lora_alpha"]),
        dropout=float(fields.get("lora_dropout", 0.0)),
        rslora=bool(fields.get("use_rslora", False)),
        name=name,
    )
    return config, import_params(plan, source.read)


def export_peft(
    folder: str | Path,
    base: Config,
    config: LoRAConfig,
    lora: Any,
    family: str | None = None,
    base_name: str | None = None,
) -> Path:
    """Write the adapter `config.name` of the collection `lora` (stacked) so that `peft` loads it.

    `base_name`: what `peft` notes as the base's name or folder. Raises `UserError` when the folder exists already,
    `MappingError` for layers that the family has no module for, or that do not fit `base`.
    """
    own = _family(base, family)
    table = adapter_table(own.table(base, own.spellings[0]), config.name)
    leaves = {p: leaf for p, leaf in flatten_by_path(lora).items() if p.split("/")[-2:-1] == [config.name]}
    require(bool(leaves), "adapter", config.name, "the collection holds no weights of that name")
    tree = nested(leaves)
    shapes = {f"{PREFIX}{name}": shape for name, shape in export_shapes(table, tree).items()}
    places = [place for _, place in _places(table, config.name) if f"{place}/{config.name}/a" in leaves]
    _require_same(_abstract(own.abstract(base), table, places, config.name, config.rank), leaves)
    arrays = ((f"{PREFIX}{name}", array) for name, array in export_params(table, tree))
    modules = _short_names(table, config.name, places)
    with whole_folder(folder) as partial:
        write_safetensors(partial / f"{WEIGHTS}.safetensors", shapes, arrays, np.float32)
        text = json.dumps(_fields(base, config, modules, base_name), indent=2)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
    return Path(folder)


def adapter_table(table: Table, name: str) -> Table:
    """The table of adapters called `name` on the dense layers of a family's table, without the prefix of `peft`.

    Layers that the family keeps in one module (query, key and value of GPT-2) have none.
    """
    return Table(
        rules=tuple(rule for each in table.rules for rule in _pair(each, name)),
        renames=((rf"^{re.escape(PREFIX)}", ""), *table.renames),
    )


def live(each: Rule, source: str, target: str) -> Rule:
    """A rule of an adapter file under the names of a model in use, which say the adapter's name too.

    `source` stands before the names, `target` before the paths.
    """
    names = tuple(f"{source}{name.replace('.weight', '.default.weight')}" for name in each.sources)
    return Rule(names, tuple(f"{target}{path}" for path in each.targets), each.transform)


def abstract_lora(lm: DecoderConfig, lora: LoRAConfig) -> dict[str, Any]:
    """Shapes of LoRA in a speech-aware LM, whose `targets` begin with `lm/`."""
    own = lora.replace(targets=lora.targets.removeprefix("lm/"))
    make = lora_initialise(lambda key: lm.make().init(key, jnp.zeros((1, 2), jnp.int32)), own)
    return {"lm": jax.eval_shape(make, jax.random.key(0))["lora"]}


def read_fields(folder: Path) -> dict[str, Any]:
    """The fields of `adapter_config.json`; raises `UserError` naming one that we can't honour."""
    path = folder / CONFIG
    require(path.is_file(), "adapter folder", str(folder), f"holds no {CONFIG}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = fields["r"], fields["lora_alpha"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: it is no JSON with r and lora_alpha") from None
    number = isinstance(rank, int) and isinstance(alpha, int | float)
    require(number, f"r, lora_alpha in {path}", [rank, alpha], "must be numbers")
    where = f"in {path}: slm_jax reads plain LoRA only"
    require(fields.get("peft_type") == "LORA", "peft_type", fields.get("peft_type"), where)
    require(fields.get("bias", "none") == "none", "bias", fields.get("bias"), where)
    begun = fields.get("init_lora_weights", True)
    moved = isinstance(begun, str) and begun.startswith(CHANGES_BASE)
    require(not moved, "init_lora_weights", begun, f"in {path}: it changes the weights of the base")
    for name, value in fields.items():
        require(name in READ | SILENT or not value, name, value, where)
    return fields


def _family(base: Config, family: str | None) -> Family:
    return family_for(base) if family is None else family_named(family)


def _pair(each: Rule, name: str) -> Iterator[Rule]:
    """The rules of `a` and `b` beside one dense kernel; `peft` keeps both as `[out, in]`."""
    (source, *more), target, dense = each.sources, each.targets[0], each.transform
    if more or len(each.targets) > 1 or not isinstance(dense, Dense) or not target.endswith("/kernel"):
        return
    module, place = source.removesuffix(".weight"), f"{target.removesuffix('/kernel')}/{name}"
    yield rule(f"{module}.lora_A.weight", f"{place}/a", Dense(inputs=dense.inputs))
    yield rule(f"{module}.lora_B.weight", f"{place}/b", Dense())


def _places(table: Table, name: str) -> Iterator[tuple[Rule, str]]:
    """The rule of each `a` and the module path of its layer."""
    for each in table.rules:
        if each.targets[0].endswith("/a"):
            yield each, each.targets[0].removesuffix(f"/{name}/a")


def _any_layer(source: str, modules: Iterable[str]) -> bool:
    template = re.escape(source.removesuffix(".lora_A.weight")).replace(re.escape(LAYER), r"\d+")
    return any(re.fullmatch(template, module) for module in modules)


def _abstract(params: Any, table: Table, places: list[str], name: str, rank: int) -> dict[str, Any]:
    """Shapes of adapters of this rank at `places`."""
    kernels, wanted = flatten_by_path(params), {}
    for each, place in _places(table, name):
        if place in places:
            shape = tuple(kernels[f"{place}/kernel"].shape)
            lead = 1 if LAYER in each.sources[0] and LAYER not in each.targets[0] else 0
            end = lead + each.transform.inputs  # type: ignore[attr-defined]
            wanted[f"{place}/{name}/a"] = jax.ShapeDtypeStruct((*shape[:end], rank), jnp.float32)
            wanted[f"{place}/{name}/b"] = jax.ShapeDtypeStruct((*shape[:lead], rank, *shape[end:]), jnp.float32)
    return nested(wanted)


def _require_same(abstract: Any, leaves: Mapping[str, Any]) -> None:
    faults = [
        f"{path!r} has shape {tuple(leaves[path].shape)}, the config needs {leaf.shape}"
        for path, leaf in flatten_by_path(abstract).items()
        if tuple(leaves[path].shape) != leaf.shape
    ]
    if faults:
        raise MappingError(faults, "the adapter is not one of this base and config")


def _short_names(table: Table, name: str, places: list[str]) -> list[str]:
    """`q_proj` for each of `places`, or as much of the end of the module's name as tells it from the others."""
    parts = {place: each.sources[0].removesuffix(".lora_A.weight").split(".") for each, place in _places(table, name)}
    others = [other for place, other in parts.items() if place not in places]
    names = set()
    for own in (parts[place] for place in places):
        length = next(n for n in range(1, len(own) + 1) if all(own[-n:] != other[-n:] for other in others))
        names.add(".".join(own[-length:]))
    return sorted(names)


def _fields(base: Config, config: LoRAConfig, modules: list[str], base_name: str | None) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if isinstance(base, DecoderConfig) else None,
        "base_model_name_or_path": base_name,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
