"""BEATs against a PyTorch twin with the published names: every layer, padded or not, and files both ways."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.encoders.beats import BEATsConfig, beats_base
from slm_jax.interop.engine import MappingError, export_params, import_params, resolve
from slm_jax.interop.family_beats import BEATS
from slm_jax.interop.model import export, load

torch = pytest.importorskip("torch")
beats_twin = pytest.importorskip("tests.parity.beats_twin")

# With 512 points to a frame one of the 128 bands holds no bin, in Kaldi as well
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")

TOLERANCE = 5e-5  # of which the float32 filter bank makes most
LONG, SHORT = 22_000, 14_700
"""64 and 40 tokens; the shorter one ends within a square."""


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Two rows of noise and tones, the second padded with zeros, and their mask."""
    mask = np.arange(LONG) < np.array([LONG, SHORT])[:, None]
    time = np.arange(LONG) / 16_000
    tones = np.stack([np.sin(1_800 * time), np.sin(6_000 * time * (1 + time))])
    noise = np.random.default_rng(0).standard_normal((2, LONG))
    return ((0.1 * tones + 0.02 * noise) * mask).astype(np.float32), mask


@pytest.fixture(scope="module")
def twin():
    return beats_twin.drawn(beats_twin.CFG)


def imported(model, cfg: dict = beats_twin.CFG, **changes) -> tuple[BEATsConfig, dict]:
    config = BEATS.read_config({"model_type": "beats", **cfg})
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    plan = resolve(BEATS.table(config, "original"), {n: w.shape for n, w in weights.items()}, BEATS.abstract(config))
    return config.replace(**changes), jax.tree.map(jnp.asarray, import_params(plan, weights.__getitem__))


def run(config: BEATsConfig, params: dict, samples: np.ndarray, mask: np.ndarray):
    return jax.jit(lambda p, *xs: config.make().apply({"params": p}, *xs, collect=True))(params, samples, mask)


def expected(model, samples: np.ndarray, padding: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states [L+1, B, T, D] and the padding of the tokens."""
    with torch.no_grad():
        states, padding = model(samples, padding)
    return np.stack([state.numpy() for state in states]), padding.numpy()


def test_every_layer_equals_the_twin_row_by_row(twin, rows):
    """Batched and padded on our side, each row alone on the twin's."""
    config, params = imported(twin)
    assert count_parameters(params) == sum(p.numel() for p in twin.parameters())
    out = run(config, params, *rows)
    assert out.features.shape == (2, 64, 12)
    for row, (length, tokens) in enumerate(((LONG, 64), (SHORT, 40))):
        hidden, _ = expected(twin, rows[0][row : row + 1, :length])
        assert out.mask[row].sum() == tokens == hidden.shape[2] == config.frame_count(length)
        assert hidden.shape[0] == 4
        assert hidden.std() > 0.1
        np.testing.assert_allclose(out.hidden[:, row, :tokens], hidden[:, 0], atol=TOLERANCE)
        np.testing.assert_allclose(out.values[row, :tokens], hidden[-1, 0], atol=TOLERANCE)


def test_reference_padding_equals_the_padded_twin(twin, rows):
    samples, mask = rows
    config, params = imported(twin, reference_padding=True)
    hidden, padding = expected(twin, samples, ~mask)
    out = run(config, params, samples, mask)
    np.testing.assert_array_equal(out.mask, ~padding)
    assert out.mask.sum(1).tolist() == [64, 46], "some bands of the square in which the row ends"
    np.testing.assert_allclose(np.asarray(out.hidden)[:, ~padding], hidden[:, ~padding], atol=TOLERANCE)


def test_a_twin_without_its_queries_or_its_scale_would_be_missed(rows):
    """The gate on the layer's input, as in WavLM, or plain residuals: far from what ours gives."""
    samples, mask = rows[0][:1], rows[1][:1]
    config, params = imported(beats_twin.drawn(beats_twin.CFG))
    ours = run(config, params, samples, mask).hidden[:, 0]
    gated_otherwise, plain = beats_twin.drawn(beats_twin.CFG), beats_twin.drawn(beats_twin.CFG)
    for layer in gated_otherwise.encoder.layers:
        layer.self_attn.gate_reads_input = True
    for layer in plain.encoder.layers:
        layer.alpha = 1.0
    for other in (gated_otherwise, plain):
        assert np.abs(ours - expected(other, samples)[0][:, 0]).max() > 1000 * TOLERANCE


def test_the_published_shape_has_the_twins_parameters():
    with torch.device("meta"):
        model = beats_twin.BEATs(beats_twin.PUBLISHED)
    config = BEATS.read_config({"model_type": "beats", **beats_twin.PUBLISHED})
    assert config == beats_base()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["encoder.pos_conv.0.weight_g"] == (1, 1, 128)
    assert shapes["encoder.layers.11.self_attn.relative_attention_bias.weight"] == (320, 12)
    abstract = BEATS.abstract(config)
    resolve(BEATS.table(config, "original"), shapes, abstract)
    count = count_parameters(abstract)
    assert count == sum(p.numel() for p in model.parameters())
    assert 90_000_000 < count < 91_000_000
    assert [config.frame_count(n) for n in (160_000, 480_000)] == [496, 1_496]


def test_a_checkpoint_file_is_read_and_written_back(tmp_path):
    """As published: `cfg` and `model` in one file, with the classifier of a fine-tuned one."""
    model = beats_twin.drawn(beats_twin.CFG, classes=5)
    state = model.state_dict()
    (tmp_path / "published").mkdir()
    torch.save({"cfg": beats_twin.CFG, "model": state}, tmp_path / "published" / "BEATs.pt")
    write_json(tmp_path / "published", {"model_type": "beats", **beats_twin.CFG, "finetuned_model": True})
    config, params = load(tmp_path / "published")
    written = dict(export_params(BEATS.table(config, "original"), params))
    assert written.keys() == state.keys() - {"predictor.weight", "predictor.bias"}
    for name, array in written.items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
    export(config, params, tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again[0] == config
    jax.tree.map(np.testing.assert_array_equal, again[1], params)


def test_the_shared_table_is_one(twin):
    config = BEATS.read_config({"model_type": "beats", **beats_twin.CFG})
    name = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    weights = {key: value.detach().numpy() for key, value in twin.state_dict().items()}

    def read(given: dict) -> dict:
        shapes = {key: value.shape for key, value in given.items()}
        return import_params(resolve(BEATS.table(config, "original"), shapes, BEATS.abstract(config)), given.get)

    first_only = {k: v for k, v in weights.items() if k not in (name.format(1), name.format(2))}
    np.testing.assert_array_equal(read(first_only)["relative_bias"]["embedding"], weights[name.format(0)])
    with pytest.raises(UserError, match="should be copies of one"):
        read(weights | {name.format(2): weights[name.format(2)] + 1})
    with pytest.raises(MappingError, match=r"'encoder.layers.1.self_attn.grep_b' has no rule"):
        read(weights | {"encoder.layers.1.self_attn.grep_b": np.zeros(3, np.float32)})


def write_json(folder: Path, fields: dict) -> None:
    (folder / "config.json").write_text(json.dumps(fields))
