"""CTC compression and AlignFormer: what is averaged, what overflows, what trains the CTC layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.alignformer import AlignFormerConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.core.types import Frames
from tests.contracts import checks

LABELS = jnp.array([[0, 1, 1, 0, 2, 2, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0]])
MASK = jnp.arange(8) < jnp.array([[7], [5]])
VALUES = jnp.concatenate([jax.nn.one_hot(LABELS, 3), jax.random.normal(jax.random.key(0), (2, 8, 2))], axis=-1)
TRUNK = QFormerConfig(context_width=5, width=6, layers=2, heads=2, hidden=8, init_scale=0.5)


def compressed(rule: str, keep: float = 1.0) -> Frames:
    """Frames whose first channels say their label, through an adapter that maps each to itself."""
    config = CTCAdapterConfig(width=5, segments=CTCSegmentsConfig(vocabulary=3, rule=rule, keep=keep))
    head = {"kernel": jnp.eye(5, 3), "bias": jnp.zeros(3)}
    params = {"segments": {"head": head}, "map": {"kernel": jnp.eye(5), "bias": jnp.zeros(5)}}
    return jax.jit(config.make().apply)({"params": params}, Frames(VALUES, MASK))


def means(row: int, *stretches: tuple[int, ...]) -> np.ndarray:
    return np.stack([np.asarray(VALUES)[row, list(frames)].mean(0) for frames in stretches])


SPOKEN = {
    "runs": ((0,), (1, 2), (3,), (4, 5), (6,)),
    "spoken_frames": ((1,), (2,), (4,), (5,)),
    "spoken_runs": ((1, 2), (4, 5)),
    "spoken_spans": ((0, 1, 2, 3), (4, 5, 6)),
}


@pytest.mark.parametrize("rule", SPOKEN)
def test_each_rule_averages_what_it_says(rule):
    out = compressed(rule)
    assert out.mask.sum(1).tolist() == [len(SPOKEN[rule]), 1]
    np.testing.assert_allclose(out.values[0, : len(SPOKEN[rule])], means(0, *SPOKEN[rule]), atol=1e-6)
    np.testing.assert_allclose(out.values[1, :1], means(1, range(5)), atol=1e-6)


def test_what_does_not_fit_goes_into_the_last_segment():
    """Of seven frames 0.4 are three; of the two last runs nothing is lost."""
    out = compressed("runs", keep=0.4)
    assert out.values.shape[1] == 4  # of the eight that there is room for
    assert out.mask.sum(1).tolist() == [3, 1]
    np.testing.assert_allclose(out.values[0, :3], means(0, (0,), (1, 2), (3, 4, 5, 6)), atol=1e-6)


@pytest.mark.parametrize("kind", ["ctc", "alignformer"])
def test_only_the_logits_train_the_ctc_layer(kind):
    segments, frames = CTCSegmentsConfig(vocabulary=3, rule="spoken_spans"), Frames(VALUES, MASK)
    if kind == "ctc":
        module = CTCAdapterConfig(width=4, segments=segments).make()
    else:
        module = AlignFormerConfig(width=4, segments=segments, qformer=TRUNK, query_scale=1.0).make()
    params = checks.random_params(module, jax.random.key(1), frames)

    def head_gradient(method):
        def loss(params):
            out = module.apply({"params": params}, frames, method=method)
            return jnp.square(out if method else out.values).sum()

        return jax.tree.leaves(jax.jit(jax.grad(loss))(params)["segments"]["head"])

    assert not any(np.asarray(leaf).any() for leaf in head_gradient(None))
    assert all(np.asarray(leaf).any() for leaf in head_gradient("logits"))
    logits = module.apply({"params": params}, Frames(VALUES.astype(jnp.bfloat16), MASK), method="logits")
    assert logits.shape == (2, 8, 3)
    assert logits.dtype == jnp.float32


def test_a_segment_hears_its_own_frames_only():
    """In AlignFormer both queries of a segment hear all of its frames and nothing else."""
    segments = CTCSegmentsConfig(vocabulary=3, rule="spoken_spans")
    module = AlignFormerConfig(width=4, segments=segments, qformer=TRUNK, queries=2, query_scale=1.0).make()
    params = checks.random_params(module, jax.random.key(1), Frames(VALUES, MASK))
    params["segments"]["head"] = {"kernel": jnp.eye(5, 3), "bias": jnp.zeros(3)}

    @jax.jit
    @jax.grad
    def reach(values, place):
        return jnp.square(module.apply({"params": params}, Frames(values, MASK)).values[0, place]).sum()

    def heard(place):
        return np.flatnonzero(np.asarray(reach(VALUES, place))[0].any(-1)).tolist()

    assert [heard(place) for place in range(4)] == [[0, 1, 2, 3]] * 2 + [[4, 5, 6]] * 2
