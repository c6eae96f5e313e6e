"""An objective over a model whose frozen parts are kept apart."""

import dataclasses
from typing import Any

import jax

from slm_jax.core.contracts import Batch, Loss, Variables
from slm_jax.core.trees import together


@dataclasses.dataclass(frozen=True)
class OverParts:
    """`objective` over what is trained and what lies in `frozen["frozen"]` under the same names.

    For LoRA on a base that enters no checkpoint.
    """

    objective: Any

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        return self.objective(together(variables, frozen), batch, rng)
