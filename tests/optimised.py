"""Functions compiled as users have them, without the cheap settings of `tests/conftest.py`."""

from collections.abc import Callable
from typing import Any

XLAS_OWN = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}


def optimised(function: Any, *args: Any, **settings: Any) -> Any:
    """What a jitted `function` gives; `settings` are its static arguments.

    For sums whose last digits count: unoptimised code adds one number after the other, which rounds more often. And for
    bytes that must not depend on the length of a row: it takes the last few numbers of a row in another way.
    """
    compiled: Callable = function.lower(*args, **settings).compile(compiler_options=XLAS_OWN)
    return compiled(*args)
