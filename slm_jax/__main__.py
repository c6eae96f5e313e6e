"""`python -m slm_jax VERB`."""

from slm_jax.cli.main import run

if __name__ == "__main__":  # worker processes import this module again
    run()
