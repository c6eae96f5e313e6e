"""The distances of alignment against PyTorch's own losses."""

import jax
import numpy as np
import pytest

from slm_jax.core.types import Frames
from slm_jax.objectives.alignment import divergence
from slm_jax.objectives.token_distance import TokenDistanceConfig, token_distances

torch = pytest.importorskip("torch")
functional = torch.nn.functional

GENERATOR = np.random.default_rng(0)
MASK = np.arange(5) < np.array([5, 3])[:, None]
FOUND, ROWS = (GENERATOR.standard_normal((2, 5, 7)).astype(np.float32) for _ in range(2))
IDS = np.arange(10, dtype=np.int32).reshape(2, 5)


def ours(distance, **changes):
    config = TokenDistanceConfig(distance=distance, **changes)

    def loss(values):
        sums = token_distances(
            config, Frames(values, jax.numpy.asarray(MASK)), *map(jax.numpy.asarray, (ROWS, IDS, MASK))
        )
        return sums.total / sums.count

    return jax.jit(jax.value_and_grad(loss))(jax.numpy.asarray(FOUND))


def theirs(distance, temperature=0.1):
    found, rows = (torch.from_numpy(x[MASK]).requires_grad_() for x in (FOUND, ROWS))
    if distance == "mse":
        loss = functional.mse_loss(found, rows.detach()) / rows.detach().square().mean()
    elif distance == "cosine":
        loss = functional.cosine_embedding_loss(found, rows.detach(), torch.ones(len(found)))
    else:
        scores = functional.normalize(found) @ functional.normalize(rows.detach()).T / temperature
        loss = functional.cross_entropy(scores, torch.arange(len(found)))
    loss.backward()
    return loss.item(), found.grad.numpy()


@pytest.mark.parametrize("distance", ["mse", "cosine", "contrastive"])
def test_distances_and_their_gradients(distance):
    (value, slope), (wanted, wanted_slope) = ours(distance), theirs(distance)
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(np.asarray(slope)[MASK], wanted_slope, atol=1e-6)
    assert np.abs(np.asarray(slope)[~MASK]).max() == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_of_distributions(temperature):
    mine, teacher = (GENERATOR.standard_normal((4, 11)).astype(np.float32) for _ in range(2))
    found = divergence(*map(jax.numpy.asarray, (mine, teacher)), temperature)
    pair = (torch.from_numpy(x / temperature).log_softmax(-1) for x in (mine, teacher))
    wanted = functional.kl_div(*pair, log_target=True, reduction="none").sum(-1) * temperature**2
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
