"""CTC beside `torch.nn.functional.ctc_loss`: values and gradients of padded rows; its head beside torch's layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.ctc_head import REACH, CTCHeadConfig
from slm_jax.objectives.ctc import ctc_nll
from tests.contracts.checks import assert_close, random_params

torch = pytest.importorskip("torch")
ROWS, FRAMES, CLASSES, LABELS = 6, 60, 9, 14


def batch():
    """Rows of few classes, so that labels repeat; the last one has more labels than frames."""
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((ROWS, FRAMES, CLASSES))).astype(np.float32)
    labels = rng.integers(1, CLASSES, (ROWS, LABELS)).astype(np.int32)
    labels[1, :6] = 4  # all alike: a blank between each two
    frames, count = np.array([60, 41, 33, 60, 27, 9]), np.array([14, 6, 1, 9, 0, 14])
    return logits, np.arange(FRAMES) < frames[:, None], labels, np.arange(LABELS) < count[:, None]


def theirs(logits, frame_mask, labels, label_mask, zero_infinity):
    """Losses of the rows and the gradient of their weighed sum."""
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    lengths = [torch.tensor(mask.sum(1)) for mask in (frame_mask, label_mask)]
    log_probs = x.log_softmax(-1).transpose(0, 1)
    loss = torch.nn.functional.ctc_loss(
        log_probs, torch.tensor(labels).long(), *lengths, reduction="none", zero_infinity=zero_infinity
    )
    (loss * torch.arange(1.0, ROWS + 1, dtype=torch.float64)).sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def test_losses_and_gradients_are_pytorchs():
    logits, frame_mask, labels, label_mask = batch()
    assert any((np.diff(row[mask]) == 0).any() for row, mask in zip(labels, label_mask, strict=True))
    wanted, wanted_gradient = theirs(logits, frame_mask, labels, label_mask, zero_infinity=True)
    logits[~frame_mask] = np.nan
    rest = tuple(map(jnp.asarray, (frame_mask, labels, label_mask)))

    def total(x):
        each = ctc_nll(x, *rest, zero_infinity=True)
        return (each * jnp.arange(1.0, ROWS + 1)).sum(), each

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(logits))
    assert wanted[-1] == 0 and (wanted[:-1] > 1).all()
    assert_close(found, wanted, 1e-5)
    assert_close(gradient, wanted_gradient, 1e-5)
    assert np.abs(wanted_gradient).max() > 1


def test_labels_longer_than_frames_are_as_improbable_there():
    logits, frame_mask, labels, label_mask = batch()
    wanted, _ = theirs(logits, frame_mask, labels, label_mask, zero_infinity=False)
    found = ctc_nll(*map(jnp.asarray, (logits, frame_mask, labels, label_mask)))
    assert wanted[-1] == found[-1] == np.inf
    assert_close(found[:-1], wanted[:-1], 1e-5)


def test_a_hidden_head_is_a_norm_a_convolution_and_a_map():
    frames = np.random.default_rng(1).standard_normal((2, 9, 6)).astype(np.float32)
    mask = np.arange(9) < np.array([9, 5])[:, None]
    head = CTCHeadConfig(width=6, classes=4, hidden=8).make()
    params = random_params(head, jax.random.key(0), jnp.asarray(frames))
    norm, conv, linear = torch.nn.LayerNorm(6), torch.nn.Conv1d(6, 8, REACH, padding="same"), torch.nn.Linear(8, 4)
    tensors = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params)
    with torch.no_grad():
        norm.weight.copy_(tensors["norm"]["scale"]), norm.bias.copy_(tensors["norm"]["bias"])
        conv.weight.copy_(tensors["context"]["kernel"].permute(2, 1, 0)), conv.bias.copy_(tensors["context"]["bias"])
        linear.weight.copy_(tensors["kernel"].T), linear.bias.copy_(tensors["bias"])
        read = norm(torch.tensor(frames)) * torch.tensor(mask)[..., None]
        wanted = linear(torch.nn.functional.gelu(conv(read.transpose(1, 2))).transpose(1, 2)).numpy()
    found = head.apply({"params": params}, jnp.asarray(frames), jnp.asarray(mask))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
