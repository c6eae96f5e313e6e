"""A PyTorch reference, and the tools that its builders share: drawn weights, recorded activations, dtypes.

A reference runs PyTorch on NumPy arrays and gives what passes through it by name, in the order of the computation.
"""

import importlib.util
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reference:
    """One PyTorch model.

    `hub_config`: its config.json. `weights`: its arrays in float32 under the names of `spelling`.
    `run`: inputs -> name -> activations [B, steps, ...]; a mask that is None means that all is real. Which inputs there
    are is the affair of its kind (`workbench.comparable_decoder` and its like).
    `tiny`: weights were drawn, and every activation should have a standard deviation between 0.1 and 10.
    """

    family: str
    variant: str
    spelling: str
    hub_config: dict[str, Any]
    weights: Arrays
    run: Callable[[Mapping[str, np.ndarray | None]], Arrays]
    tiny: bool = True


def reference_of(
    family: str,
    variant: str,
    model: Any,
    hub_config: dict[str, Any],
    dtype: str,
    tiny: bool,
    activations: Callable[[Any, Mapping[str, np.ndarray | None]], Arrays],
) -> Reference:
    """A model of transformers that computes in `dtype`; `activations(model, inputs)` is what passes through it."""
    weights = state_arrays(model)
    run = partial(activations, in_dtype(model, dtype))
    return Reference(family, variant, "transformers", hub_config, weights, run, tiny)


def require_torch() -> None:
    """Raises `UserError` with the way out when PyTorch or transformers is missing."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the PyTorch side needs {' and '.join(missing)}: pip install -e '.[torch]'")


def draw_weights(model: Any, seed: int, gain: float = 1.0) -> Any:
    """Every parameter anew, so large that each layer is felt and none swamps the others; returns the model.

    Kernels keep the variance of their input times `gain` squared, norms scale by 1 +- 0.2, biases are 0.1 wide,
    tables of vectors 0.5. Default initialisations leave biases at zero and norms at one, which hides mistakes.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in drawn:  # a tied table is one parameter in two places
                    drawn.add(id(parameter))
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(_spread(module, name, parameter, gain) * noise + _centre(module, name, gain))
    return model.eval()


def settle(model: Any, paths: Iterable[str], run: Callable[[], Any], std: float = 1.0) -> None:
    """Rescale the weights of these layers, first to last, until each gives `std` while `run()` runs.

    For chains without norms, where drawn weights add up to whispers or shouts, more so the fewer channels there are.
    """
    import torch

    for path in paths:
        layer = model.get_submodule(path)
        given = float(recorded(model, {path: path}, run)[path].std())
        with torch.no_grad():
            (layer.weight_g if hasattr(layer, "weight_g") else layer.weight).mul_(std / given)


def recorded(model: Any, places: Mapping[str, str], run: Callable[[], Any]) -> Arrays:
    """What passes the named modules while `run()` runs: `places` maps a name to `path` (output) or `>path` (input)."""
    import torch

    doubled = next(model.parameters()).dtype == torch.float64
    kept: dict[str, Any] = {}
    handles = []
    for name, place in places.items():
        module = model.get_submodule(place.removeprefix(">"))
        handles.append(_hook(module, name, kept, before=place.startswith(">")))
    try:
        with torch.no_grad(), wide_floats(doubled), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what PyTorch thinks of its own calls is not our user's
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: kept[name] for name in places}


def state_arrays(model: Any) -> Arrays:
    """The state dict in float32."""
    return {name: value.detach().float().numpy() for name, value in model.state_dict().items()}


def in_dtype(model: Any, dtype: str) -> Any:
    """The model in "float32" or "float64"; rotary frequencies are computed anew, since widening keeps their error."""
    if dtype != "float64":
        return model.float()
    rotary = [name for name, module in model.named_modules() if hasattr(module, "inv_freq")]
    with wide_floats(True):
        for name in rotary:
            old = model.get_submodule(name)
            model.set_submodule(name, type(old)(old.config))
    return model.double()


@contextmanager
def wide_floats(wide: bool) -> Iterator[None]:
    """While `wide`, what PyTorch code calls float32 is float64.

    LLaMA's norms and rotary angles in transformers name float32 whatever the model's dtype; left alone, they would
    give a float64 model the rounding of float32.
    """
    import torch

    kept = torch.float32, torch.float
    try:
        if wide:
            torch.float32 = torch.float = torch.float64
        yield
    finally:
        torch.float32, torch.float = kept


def config_json(model: Any) -> dict[str, Any]:
    """What `save_pretrained` would write as config.json."""
    return json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}


def _hook(module: Any, name: str, kept: dict[str, Any], before: bool) -> Any:
    def keep(value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        kept[name] = value.detach().numpy().copy()  # later layers may write into the tensor

    if before:
        read = lambda _module, args, named: keep(args or next(iter(named.values())))  # noqa: E731
        return module.register_forward_pre_hook(read, with_kwargs=True)
    return module.register_forward_hook(lambda _module, _args, output: keep(output))


def _spread(module: Any, name: str, parameter: Any, gain: float) -> float:
    """The standard deviation that a parameter is drawn with."""
    kind = type(module).__name__
    if "Norm" in kind:
        return 0.2 if name == "weight" else 0.1
    if "Embedding" in kind and name == "weight":
        return 0.5
    if name in ("original0", "weight_g"):
        return 0.2
    if parameter.ndim < 2:
        return 0.1
    inputs = parameter[0].numel()
    if kind == "ConvTranspose1d":  # each output is reached by kernel / stride taps of every input
        inputs = parameter.shape[0] * parameter.shape[2] / module.stride[0]
    elif kind == "Conv1D":  # GPT-2's, whose weight is [in, out]
        inputs = parameter.shape[0]
    return gain / inputs**0.5


def _centre(module: Any, name: str, gain: float) -> float:
    if name in ("original0", "weight_g"):
        return gain
    return 1.0 if "Norm" in type(module).__name__ and name == "weight" else 0.0
