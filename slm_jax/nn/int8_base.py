"""A base model whose kernels are kept in int8 (`nn.int8`): for frozen bases under adapters, and for serving."""

from typing import Any

import jax.numpy as jnp
from flax.core import meta

from slm_jax.nn.int8 import boxed_like, quantised
from slm_jax.nn.linear_sites import Sites, kernel_at, leading_axes, matching_sites, with_kernel


def quantise_int8(params: Any, sites: Sites, targets: str = ".*") -> Any:
    """`params` with the kernels of the `Linear` layers whose path `targets` matches kept in int8.

    Takes stacked parameters, boxed or not; `sites` are those of `linear_sites`. Embeddings, norms and a head that is
    no `Linear` stay as they are. Raises `UserError` for a pattern that matches no layer.
    """
    for path, site in matching_sites(sites, targets).items():
        kernel = kernel_at(params, path)
        lead = len(leading_axes(kernel, site)[0])
        inputs = tuple(range(lead, lead + len(site.inputs)))
        stored = boxed_like(kernel, quantised(jnp.asarray(meta.unbox(kernel)), inputs), inputs)
        params = with_kernel(params, path, stored)
    return params
