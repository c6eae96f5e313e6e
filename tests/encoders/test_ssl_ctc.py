"""An encoder with the head of CTC."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.ssl_ctc import CTCEncoderConfig
from tests.contracts.checks import assert_close, random_params
from tests.shapes import ENCODERS

CONFIG = CTCEncoderConfig(encoder=ENCODERS["log_mel"], classes=5)


def test_padding_has_no_effect_and_the_encoder_is_the_encoder():
    model, rng = CONFIG.make(), np.random.default_rng(0)
    samples = jnp.asarray(rng.standard_normal((2, 4000)).astype(np.float32))
    mask = jnp.arange(4000) < jnp.array([4000, 2480])[:, None]
    params = random_params(model, jax.random.key(0), samples)
    run = jax.jit(lambda samples, mask: model.apply({"params": params}, samples, mask))
    logits, real = run(jnp.where(mask, samples, 9.0), mask)
    alone, _ = run(samples[1:, :2480], mask[1:, :2480])
    count = int(CONFIG.encoder.frame_count(2480))
    assert logits.dtype == jnp.float32 and logits.shape[2] == 5 and real.sum(1).tolist()[1] == count
    assert_close(logits[1, :count], alone[0], 1e-4)
    out = CONFIG.encoder.make().apply({"params": params["encoder"]}, samples, mask)
    head = params["head"]
    assert_close(out.values @ head["kernel"] + head["bias"], logits, 1e-4, where=real)


def test_a_head_without_labels_is_refused():
    with pytest.raises(UserError, match="classes is 1"):
        CTCEncoderConfig(encoder=CONFIG.encoder, classes=1)
