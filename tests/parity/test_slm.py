"""SLM's form against `transformers` and `torch`: T5 that reads an adapter's vectors in front of the words' own.

The adapter is a `TransformerEncoder` between two linear maps. Every row has speech and words of its own lengths; NaN
stands behind the speech of each.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.assemblies.speech_aware_lm import TEXT, SpeechAwareLMConfig
from slm_jax.core.types import Frames
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.model import load
from slm_jax.interop.reference import draw_weights
from tests.shapes import ENCODERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHANNELS, INNER, WIDTH, V = 16, 20, 24, 41
HEARD, ASKED, ANSWERED = (9, 4, 6), (5, 2, 7), (6, 3, 8)
FRAMES, ROW, ANSWER, NEW = 9, 16, 8, 10
SHAPE = {"vocab_size": V, "d_model": WIDTH, "d_kv": 10, "d_ff": 40, "num_heads": 3, "num_layers": 2}
SHAPE |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
rng = np.random.default_rng(0)
SPEECH = [rng.standard_normal((n, CHANNELS)).astype(np.float32) for n in HEARD]
WORDS, ANSWERS = ([rng.integers(2, V, n) for n in lengths] for lengths in (ASKED, ANSWERED))
PAD, END = 0, 1


class TorchAdapter(torch.nn.Module):
    """What SLM puts between its frozen models."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(
            INNER, 4, 28, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
        )
        self.inner, self.map = torch.nn.Linear(CHANNELS, INNER), torch.nn.Linear(INNER, WIDTH)
        norm = torch.nn.LayerNorm(INNER, eps=1e-5)
        self.stack = torch.nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)

    def forward(self, x: Any, missing: Any) -> Any:
        return self.map(self.stack(self.inner(x), src_key_padding_mask=missing))


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, Any]:
    """Adapter and language model with every weight drawn."""
    adapter = TorchAdapter().eval()
    draw_weights(adapter, seed=1, gain=1.0)
    lm = transformers.T5ForConditionalGeneration(transformers.T5Config(**SHAPE))
    draw_weights(lm, seed=0, gain=1.5)
    with torch.no_grad():
        lm.shared.weight.mul_(0.3)
        for name, weight in lm.named_parameters():
            if name.endswith(".q.weight"):
                weight.mul_(0.2)  # T5's scores have no scale
    return adapter, lm.eval()


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory) -> tuple[Any, Any]:
    """Model and variables, carried over."""
    adapter, lm = theirs
    folder = tmp_path_factory.mktemp("slm") / "hub"
    lm.save_pretrained(folder)
    config, params = load(folder)
    layers = TransformerAdapterConfig(width=WIDTH, inner=INNER, layers=2, heads=4, hidden=28)
    model = SpeechAwareLMConfig(encoders=(ENCODERS["log_mel"],), adapter=layers, lm=config).make()
    return model, {"params": {"adapter": carried(adapter), "lm": jax.tree.map(jnp.asarray, params)}}


def carried(adapter: TorchAdapter) -> dict[str, Any]:
    """Our tree of the adapter."""
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *map(of_layer, adapter.stack.layers))
    tree = {"inner": dense(adapter.inner), "stack": {"layers": stack}, "map": dense(adapter.map)}
    return jax.tree.map(jnp.asarray, {**tree, "final_norm": scaled(adapter.stack.norm)})


def of_layer(layer: Any) -> dict[str, Any]:
    maps = zip(layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3), strict=True)
    heads = [(array(weight).T.reshape(INNER, 4, -1), array(bias).reshape(4, -1)) for weight, bias in maps]
    attention = {n: {"kernel": w, "bias": b} for n, (w, b) in zip(("query", "key", "value"), heads, strict=True)}
    out = dense(layer.self_attn.out_proj)
    return {
        "attention": {**attention, "out": {"kernel": out["kernel"].reshape(4, -1, INNER), "bias": out["bias"]}},
        "attention_norm": scaled(layer.norm1),
        "mlp": {"up": dense(layer.linear1), "down": dense(layer.linear2)},
        "mlp_norm": scaled(layer.norm2),
    }


def array(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def dense(layer: Any) -> dict[str, np.ndarray]:
    return {"kernel": array(layer.weight).T, "bias": array(layer.bias)}


def scaled(layer: Any) -> dict[str, np.ndarray]:
    return {"scale": array(layer.weight), "bias": array(layer.bias)}


def beside(rows: list[np.ndarray], size: int, fill: float = 0) -> np.ndarray:
    """Rows of `size` entries, filled up on the right."""
    found = np.full((len(rows), size, *rows[0].shape[1:]), fill, rows[0].dtype)
    for row, own in zip(found, rows, strict=True):
        row[: len(own)] = own
    return found


def read_by_theirs(theirs: tuple[Any, Any]) -> dict[str, Any]:
    """Adapted speech and embeddings one behind the other, as `inputs_embeds`."""
    adapter, lm = theirs
    missing = torch.tensor(np.arange(FRAMES) >= np.array(HEARD)[:, None])
    vectors = adapter(torch.tensor(beside(SPEECH, FRAMES)), missing)
    rows = [
        torch.cat([one[:heard], lm.shared(torch.tensor(words))])
        for one, heard, words in zip(vectors, HEARD, WORDS, strict=True)
    ]
    embeds = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=7.0)
    mask = torch.tensor(np.arange(embeds.shape[1]) < np.array(list(map(len, rows)))[:, None])
    return {"inputs_embeds": embeds, "attention_mask": mask.long()}


def read_by_ours(model: Any, frames: Frames) -> Frames:
    """The same rows by index table."""
    ids = beside([np.concatenate([np.zeros(n, int), words]) for n, words in zip(HEARD, WORDS, strict=True)], ROW)
    at = [np.concatenate([np.arange(n), np.full(len(words), TEXT)]) for n, words in zip(HEARD, WORDS, strict=True)]
    mask = np.arange(ROW) < np.array(list(map(len, at)))[:, None]
    return model.vectors(jnp.asarray(ids), model.speech(frames), jnp.asarray(beside(at, ROW, TEXT)), jnp.asarray(mask))


def heard() -> Frames:
    return Frames(
        jnp.asarray(beside(SPEECH, FRAMES, np.nan)), jnp.asarray(np.arange(FRAMES) < np.array(HEARD)[:, None])
    )


def test_logits_of_answers_equal_the_reference_in_a_padded_batch(theirs, ours):
    model, variables = ours
    answers = beside(ANSWERS, ANSWER)
    before = np.concatenate([np.full((3, 1), PAD), answers[:, :-1]], 1)
    with torch.no_grad():
        wanted = theirs[1](**read_by_theirs(theirs), decoder_input_ids=torch.tensor(before)).logits.numpy()

    def logits(model: Any, frames: Frames, answers: Any) -> Any:
        return model.head(model.run(read_by_ours(model, frames), answers))

    run = jax.jit(lambda *given: model.apply(variables, *given, method=logits))
    found = np.asarray(run(heard(), jnp.asarray(answers)))
    real = np.arange(ANSWER) < np.array(ANSWERED)[:, None]
    assert np.abs(wanted[real]).max() > 0.5
    assert np.abs(found - wanted)[real].max() <= 1e-5 * max(1.0, np.abs(wanted[real]).max())
    louder = Frames(heard().values * 2, heard().mask)
    assert np.abs(np.asarray(run(louder, jnp.asarray(answers))) - wanted)[real].max() > 1e-2  # speech is felt


@pytest.mark.parametrize("beams", [1, 3])
def test_written_ids_equal_the_reference(theirs, ours, beams):
    model, variables = ours
    with torch.no_grad():
        wanted = (
            theirs[1]
            .generate(
                **read_by_theirs(theirs),
                num_beams=beams,
                do_sample=False,
                max_new_tokens=NEW,
                decoder_start_token_id=PAD,
                pad_token_id=PAD,
            )[:, 1:]
            .numpy()
        )
    context = model.apply(variables, heard(), method=lambda model, frames: model.listened(read_by_ours(model, frames)))
    rows = model, variables, np.full((3, 1), PAD), np.ones((3, 1), bool)
    settings = SamplingConfig(max_new=NEW, temperature=0.0, end=END)
    if beams == 1:
        made = generate(*rows, jax.random.key(0), settings, context=context)
        ids, mask = np.asarray(made.ids), np.asarray(made.mask)
    else:
        found = beam_search(*rows, settings, BeamConfig(beams=beams), context=context)
        ids, mask = np.asarray(found.ids)[:, 0], np.asarray(found.mask)[:, 0]
    ended = np.cumsum(wanted == END, 1) - (wanted == END) > 0
    np.testing.assert_array_equal(mask[:, : wanted.shape[1]], ~ended)
    np.testing.assert_array_equal(ids[mask], wanted[~ended])
    assert len({tuple(row[real]) for row, real in zip(ids, mask, strict=True)}) > 1  # rows differ
