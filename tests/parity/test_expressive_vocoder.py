"""The vocoder of SpiRit-LM, with tokens of pitch and style, against the published layout written out in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.decoders.unit_vocoder import repeated
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.family_unit_hifigan import UNIT_HIFIGAN
from slm_jax.interop.reference_hifigan import unit_generator

torch = pytest.importorskip("torch")

WIDTH, HOP, UNITS, PITCHES, STYLES, SPEAKERS = 6, 10, 19, 7, 5, 4
GENERATOR = {
    "upsample_rates": [5, 2],
    "upsample_kernel_sizes": [11, 4],
    "upsample_initial_channel": 16,
    "resblock": "1",
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "sampling_rate": 16_000,
}
VOICE = {"num_embeddings": UNITS, "embedding_dim": WIDTH, "code_hop_size": HOP, "multispkr": True, "num_speakers": 4}
DURATIONS = {"encoder_embed_dim": WIDTH, "var_pred_hidden_dim": 5, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5}
HUBS = {
    "expressive": {
        "num_f0_tokens": PITCHES,
        "f0_hop_size": 2 * HOP,
        "num_style_tokens": STYLES,
        "style_hop_size": 5 * HOP,
        "dur_predictor_params": DURATIONS,
        "model_in_dim": 4 * WIDTH,
    },
    "base": {"multistyle": True, "num_styles": STYLES, "dur_predictor_params": DURATIONS, "model_in_dim": 3 * WIDTH},
}
TOLERANCE = 2e-5


class Spoken:
    """What fairseq's generator is given, in the order in which SpiRit-LM joins it: unit, pitch, style, voice, style."""

    def __init__(self, hub: dict) -> None:
        torch.manual_seed(0)
        self.model = unit_generator(hub)
        for name, count in (("f0_dict", "num_f0_tokens"), ("style_dict", "num_style_tokens")):
            if count in hub:
                setattr(self.model, name, torch.nn.Embedding(hub[count], WIDTH))
        if "multistyle" in hub:
            self.model.style = torch.nn.Embedding(hub["num_styles"], WIDTH)
        for weight in self.model.parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 4
            weight.data = torch.randn(weight.shape) * (1.2 / fan_in**0.5 if weight.ndim > 1 else 0.2)
        self.model.eval()

    def __call__(self, units, streams, rows, durations=None):
        """One row. `streams`: table -> tokens, one for each unit; `rows`: table -> the row's one."""
        with torch.no_grad():
            parts = [self.model.dict(torch.as_tensor(units))]
            parts += [getattr(self.model, name)(torch.as_tensor(ids)) for name, ids in streams.items()]
            if durations is not None:
                parts = [torch.repeat_interleave(part, torch.as_tensor(durations), dim=0) for part in parts]
            tables = [getattr(self.model, name)(torch.tensor(one)) for name, one in rows.items()]
            parts += [vector.expand(len(parts[0]), -1) for vector in tables]
            return self.model(torch.cat(parts, -1).T[None])[0, 0].numpy()

    def frames(self, units) -> np.ndarray:
        """Predicted durations."""
        with torch.no_grad():
            log_durations = self.model.dur_predictor(self.model.dict(torch.as_tensor(units))[None])[0]
        return np.maximum(1, np.round(np.expm1(log_durations.numpy()))).astype(int)


@pytest.fixture(scope="module")
def models():
    """The reference, our vocoder and its weights, of each kind."""
    made = {}
    for kind, more in HUBS.items():
        hub = GENERATOR | VOICE | more
        spoken, config = Spoken(hub), UNIT_HIFIGAN.read_config(hub)
        arrays = {name: value.detach().numpy() for name, value in spoken.model.state_dict().items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        plan = resolve(UNIT_HIFIGAN.table(config), shapes, UNIT_HIFIGAN.abstract(config))
        params = jax.tree.map(jnp.asarray, import_params(plan, arrays.__getitem__))
        made[kind] = spoken, config.make(), {"params": params}
    return made


def drawn(count: int, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, length)


def test_tokens_at_rates_of_their_own_are_repeated(models):
    """A token of pitch lasts two units, one of style five; the last of them goes on to the end."""
    spoken, vocoder, variables = models["expressive"]
    units, pitch, style = drawn(UNITS, 12, 0), drawn(PITCHES, 6, 1), drawn(STYLES, 2, 2)
    streams = {"f0_dict": np.repeat(pitch, 2), "style_dict": np.append(np.repeat(style, 5), [style[-1]] * 2)}
    wanted = spoken(units, streams, {"spkr": 3})
    given = {
        "pitch_token": repeated(jnp.asarray(pitch)[None], vocoder.config.pitch_every, 12),
        "style_token": repeated(jnp.asarray(style)[None], vocoder.config.style_every, 12),
    }
    found = jax.jit(vocoder.apply)(variables, jnp.asarray(units)[None], speaker=jnp.asarray([3]), **given)
    assert wanted.std() > 0.05 and len(wanted) == 12 * HOP
    np.testing.assert_allclose(found[0], wanted, atol=TOLERANCE)


@pytest.mark.slow(seconds=10)
def test_units_without_repetitions_bring_a_token_of_each_kind(models):
    """Durations are predicted, and tokens last as long as their units; rows of other lengths change nothing."""
    spoken, vocoder, variables = models["expressive"]
    lengths, capacity = (9, 5), 80
    rows = [
        {"units": drawn(UNITS, n, n), "f0_dict": drawn(PITCHES, n, n + 1), "style_dict": drawn(STYLES, n, n + 2)}
        for n in lengths
    ]
    padded = {
        name: jnp.asarray(np.stack([np.pad(row[name], (0, 9 - len(row[name]))) for row in rows])) for name in rows[0]
    }
    mask = jnp.arange(9) < jnp.asarray(lengths)[:, None]
    tokens = {"pitch_token": padded["f0_dict"], "style_token": padded["style_dict"]}
    speaker = jnp.asarray([1, 2])
    found = vocoder.apply(
        variables, padded["units"], mask, capacity, speaker=speaker, method=vocoder.synthesise, **tokens
    )
    for place, row in enumerate(rows):
        units = row.pop("units")
        wanted = spoken(units, row, {"spkr": int(speaker[place])}, spoken.frames(units))
        assert int(found.mask[place].sum()) == len(wanted) <= capacity * HOP
        np.testing.assert_allclose(found.samples[place, : len(wanted)], wanted, atol=TOLERANCE)


def test_the_base_vocoder_has_a_style_of_the_whole_row_behind_the_speaker(models):
    spoken, vocoder, variables = models["base"]
    units = drawn(UNITS, 8, 3)
    wanted = spoken(units, {}, {"spkr": 2, "style": 4})
    found = vocoder.apply(variables, jnp.asarray(units)[None], speaker=jnp.asarray([2]), style=jnp.asarray([4]))
    np.testing.assert_allclose(found[0], wanted, atol=TOLERANCE)


@pytest.mark.parametrize("kind", HUBS)
def test_weights_go_back_to_the_bit(models, kind):
    spoken, vocoder, variables = models[kind]
    written = dict(export_params(UNIT_HIFIGAN.table(vocoder.config), variables["params"]))
    wanted = {name: value.detach().numpy() for name, value in spoken.model.state_dict().items()}
    assert written.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)


def test_tokens_that_are_missing_or_too_few_are_named(models):
    _, vocoder, variables = models["expressive"]
    units, speaker = jnp.zeros((1, 4), jnp.int32), jnp.zeros(1, jnp.int32)
    with pytest.raises(UserError, match="pitch_token is None: this vocoder knows 7 pitch tokens and needs one per fr"):
        vocoder.apply(variables, units, speaker=speaker)
    with pytest.raises(UserError, match="tokens is 2: of 2 frames each, for 12 frames"):
        repeated(jnp.zeros((1, 2), jnp.int32), 2, 12)
