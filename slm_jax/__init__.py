"""slm_jax: spoken language models in JAX and Flax, from raw recordings to generated speech."""

__version__ = "0.1.0"
