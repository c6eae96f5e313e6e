"""Low-rank adapters (LoRA, Hu et al. 2021) from outside: no model file knows of them.

A `Linear` whose module path `targets` matches gives `x @ kernel + bias + scale * (x @ a) @ b`. Adapters lie in their
own collection, beside the parameters: `lora/<module path>/<adapter's name>/{a, b}`, with `a` `[*in, R]`, `b`
`[R, *out]` and the axis L in front in a stack. They are trained alone by `jax.grad` over that collection.

    model = with_lora(decoder, config)                    # apply as ever, with "lora" among the variables
    initialise = lora_initialise(initialise, config)      # the same base weights, and adapters that change nothing yet
    params = merge_lora(params, lora, config)             # a plain model again

`config` is one `LoRAConfig` or a tuple of them with different names. How much each one counts, and which are active,
is said at run time: `model.at(speech=0.5)`. How much it counts in each row, output by output, comes with the variables:
`{..., "lora_factors": {"speech": factors [B, F]}}` (WavLLM's prompts).
"""

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.core.config import Config
from slm_jax.core.errors import nearest, require
from slm_jax.core.trees import flatten_by_path
from slm_jax.nn.int8 import dequantised
from slm_jax.nn.linear import Linear, product
from slm_jax.nn.linear_sites import (
    LinearSite,
    Sites,
    compiled,
    is_linear_call,
    kernel_at,
    leading_axes,
    matching_sites,
    recorded_sites,
    with_kernel,
)

COLLECTION = "lora"
ROW_FACTORS = "lora_factors"
"""Adapter's name -> factors `[B, F]` of every row and output; rows that follow each other may share one (beams)."""
WITHOUT_ADAPTERS = ("bind", "init_with_output", "lazy_init", "tabulate")
"""What Linen models offer and an adapted one does not: it would run the model alone."""


class LoRAConfig(Config):
    """One adapter.

    `targets`: a regular expression that the whole module path of a `Linear` must match, such as
    `.*/attention/(query|value)`; the layers of a stack have one path. `dropout` acts on the adapter's input while
    `apply` is given an rng called `dropout`. The update is scaled by `alpha / rank`, with `rslora` by
    `alpha / sqrt(rank)` (Kalajdzievski 2023).
    """

    targets: str
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rslora: bool = False
    name: str = "default"

    def __post_init__(self) -> None:
        compiled(self.targets)
        require(self.rank >= 1, "rank", self.rank, "must be at least 1")
        require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "must lie in [0, 1)")
        require(self.name.isidentifier(), "name", self.name, "must be letters, digits and underscores")

    @property
    def scale(self) -> float:
        """What `a @ b` is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


Configs = LoRAConfig | tuple[LoRAConfig, ...]
Factors = Mapping[str, Any]
"""Adapter's name -> a number or a scalar array that multiplies its update; an adapter that is not named is off."""


def each_config(configs: Configs) -> tuple[LoRAConfig, ...]:
    """The adapters' configs; raises `UserError` for none and for two of one name."""
    several = (configs,) if isinstance(configs, LoRAConfig) else tuple(configs)
    names = [config.name for config in several]
    require(len(set(names)) == len(names) > 0, "adapters", names, "needs at least one, with different names")
    return several


@contextlib.contextmanager
def applied(configs: Configs, factors: Factors | None = None) -> Iterator[None]:
    """Models that are applied inside read the adapters of their collection `lora`; None: all of them, each once.

    Raises `UserError` at a layer that an active adapter targets and that has no weights of it among the variables.
    """
    several = each_config(configs)
    factors = {config.name: 1.0 for config in several} if factors is None else factors
    _require_known(factors, several)
    active = [(config, compiled(config.targets), factors[config.name]) for config in several if config.name in factors]

    def add(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        y = call(*args, **kwargs)
        if not is_linear_call(context) or context.module.is_initializing():
            return y
        path = "/".join(context.module.path)
        for config, pattern, factor in active:
            if pattern.fullmatch(path):
                update = config.scale * _update(context.module, config, args[0])
                y = y + (_fitted(factor, update, path) * update).astype(y.dtype)
        return y

    with nn.intercept_methods(add):
        yield


@dataclasses.dataclass(frozen=True)
class LoRAModel:
    """A Linen model whose `apply` reads adapters, with everything else of the model itself.

    Hashable as the model is, as long as the factors are numbers: jitted functions take it as a static argument.
    """

    model: Any
    configs: tuple[LoRAConfig, ...]
    factors: tuple[tuple[str, Any], ...] | None = None

    def init(self, key: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What `model.init` gives, and the adapters."""
        return lora_initialise(lambda key: self.model.init(key, *args, **kwargs), self.configs)(key)

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """`model.apply` with the adapters in `variables["lora"]`, each row counted by its own factors if it has any."""
        variables, factors = self._by_row(variables)
        with applied(self.configs, factors):
            return self.model.apply(variables, *args, **kwargs)

    def _by_row(self, variables: Any) -> tuple[Any, Factors | None]:
        """The variables that the model has, and how much each adapter counts."""
        factors = None if self.factors is None else dict(self.factors)
        if ROW_FACTORS not in variables:
            return variables, factors
        rows = variables[ROW_FACTORS]
        _require_known(rows, self.configs)
        factors = {config.name: 1.0 for config in self.configs} if factors is None else factors
        weighed = {name: factor * rows[name] if name in rows else factor for name, factor in factors.items()}
        return {name: tree for name, tree in variables.items() if name != ROW_FACTORS}, weighed

    def at(self, **factors: Any) -> "LoRAModel":
        """The same with other factors: `at(speech=0.5)`; adapters that are not named are off."""
        _require_known(factors, self.configs)
        return dataclasses.replace(self, factors=tuple(factors.items()))

    def clone(self, **changes: Any) -> "LoRAModel":
        """With other fields of the model, and the same adapters."""
        return dataclasses.replace(self, model=self.model.clone(**changes))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":  # asked for while a copy has no fields yet
            raise AttributeError(name)
        if name in WITHOUT_ADAPTERS:
            raise AttributeError(f"{name} would leave the adapters out: use init and apply")
        return getattr(self.model, name)


def with_lora(model: Any, configs: Configs) -> LoRAModel:
    """`model` with adapters that its variables hold in the collection `lora`."""
    return LoRAModel(model, each_config(configs))


def lora_initialise(
    initialise: Callable[[jax.Array], dict[str, Any]], configs: Configs
) -> Callable[[jax.Array], dict[str, Any]]:
    """`initialise(key) -> variables` with the collection `lora` added and all else as before.

    `initialise` must call the model's `init` each time it is traced (not a jitted copy of it).
    """

    def with_adapters(key: jax.Array) -> dict[str, Any]:
        with recorded_sites() as sites:
            variables = initialise(key)
        return {**variables, COLLECTION: init_lora(sites, variables["params"], configs, key)}

    return with_adapters


def init_lora(sites: Sites, params: Any, configs: Configs, key: jax.Array) -> dict[str, Any]:
    """New adapters for `params` (arrays or shapes; boxed ones give boxed adapters, which a mesh shards).

    `a` is uniform within 1 / sqrt(inputs) as in `peft`, `b` zero. `sites`: from `linear_sites`. What is drawn for a
    layer depends on its path, on the adapter's name and on `key` alone.
    """
    tree: dict[str, Any] = {}
    for config in each_config(configs):
        for path, site in matching_sites(sites, config.targets).items():
            place = tree
            for part in path.split("/"):
                place = place.setdefault(part, {})
            own = jax.random.fold_in(key, zlib.crc32(f"{path}/{config.name}".encode()))
            place[config.name] = _new(kernel_at(params, path), site, config.rank, own)
    return tree


def merge_lora(params: Any, lora: Any, configs: Configs, factors: Factors | None = None) -> Any:
    """Parameters of a plain model that gives what `params` with `lora` give.

    Kernels keep their dtype, those in int8 come back as float32. Both trees must be stacked, or both cut into layers.
    """
    several = {config.name: config for config in each_config(configs)}
    factors = dict.fromkeys(several, 1.0) if factors is None else factors
    _require_known(factors, tuple(several.values()))
    leaves = flatten_by_path(lora)
    merged = dequantised(params)
    for path in (path.removesuffix("/a") for path in leaves if path.endswith("/a")):
        place, _, name = path.rpartition("/")
        require(name in several, "adapter", name, f"has no config{nearest(name, several)}")
        if name in factors:
            a, b = leaves[f"{path}/a"], leaves[f"{path}/b"]
            kernel = jnp.asarray(kernel_at(merged, place))
            change = several[name].scale * factors[name] * _multiplied(a, b, kernel.ndim)
            require(kernel.shape == change.shape, f"adapter at {path}", change.shape, f"the kernel is {kernel.shape}")
            merged = with_kernel(merged, place, (kernel.astype(jnp.float32) + change).astype(kernel.dtype))
    return merged


def unmerge_lora(params: Any, lora: Any, configs: Configs, factors: Factors | None = None) -> Any:
    """The inverse of `merge_lora`, to rounding."""
    factors = {config.name: 1.0 for config in each_config(configs)} if factors is None else factors
    return merge_lora(params, lora, configs, {name: -factor for name, factor in factors.items()})


def _update(layer: Linear, config: LoRAConfig, x: jax.Array) -> jax.Array:
    """`(x @ a) @ b` in the layer's compute dtype."""
    rule = f"the variables hold no weights of the adapter {config.name!r} there: pass its collection {COLLECTION!r}"
    path = "/".join(layer.path)
    require(layer.has_variable(COLLECTION, config.name), "module path", path, rule)
    weights = meta.unbox(layer.get_variable(COLLECTION, config.name))
    a, b = (weights[name].astype(layer.dtype) for name in ("a", "b"))
    x = x.astype(layer.dtype)
    if config.dropout > 0.0 and layer.has_rng("dropout"):
        kept = jax.random.bernoulli(layer.make_rng("dropout"), 1.0 - config.dropout, x.shape)
        x = jnp.where(kept, x / (1.0 - config.dropout), jnp.zeros_like(x))
    return product(product(x, a, a.ndim - 1), b, 1)


def _fitted(factor: Any, update: jax.Array, path: str) -> Any:
    """A number as it is; factors `[B, F]` of rows and outputs as they stand before an update `[B', T, *outputs]`."""
    if jnp.ndim(factor) == 0:
        return factor
    rows, outputs = factor.shape
    copies, rest = divmod(len(update), rows)
    fits = outputs == math.prod(update.shape[2:]) and copies > 0 and rest == 0
    require(fits, f"factors of {path}", factor.shape, f"rows and outputs of what they weigh, {update.shape}")
    return jnp.repeat(factor, copies, axis=0).reshape(len(update), 1, *update.shape[2:]).astype(update.dtype)


def _new(kernel: Any, site: LinearSite, rank: int, key: jax.Array) -> dict[str, Any]:
    sizes, names = leading_axes(kernel, site)
    bound = 1.0 / math.sqrt(math.prod(site.inputs))
    a = jax.random.uniform(key, (*sizes, *site.inputs, rank), jnp.float32, -bound, bound)
    b = jnp.zeros((*sizes, rank, *site.outputs), jnp.float32)
    if not isinstance(kernel, meta.AxisMetadata):
        return {"a": a, "b": b}
    return {
        "a": nn.LogicallyPartitioned(a, (*names, *site.in_names, None)),
        "b": nn.LogicallyPartitioned(b, (*names, None, *site.out_names)),
    }


def _multiplied(a: Any, b: Any, axes: int) -> jax.Array:
    """`a @ b` as a kernel with so many axes, layer by layer in a stack."""
    multiply = partial(jnp.tensordot, axes=1, precision="highest")
    return jax.vmap(multiply)(a, b) if a.ndim + b.ndim == axes + 3 else multiply(a, b)


def _require_known(factors: Factors, configs: tuple[LoRAConfig, ...]) -> None:
    names = [config.name for config in configs]
    for name in factors:
        require(name in names, "adapter", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
