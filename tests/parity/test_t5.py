"""T5, its version 1.1 and mT5 of `transformers`: read by the table, compared under padding, decoded, written back.

Shapes are tiny and odd on purpose: a prime vocabulary, heads that do not add up to the width, more layers on one side,
rows longer than the distances that are told apart.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights
from slm_jax.nn.relative_bias import RelativeBiasConfig, buckets_of
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig
from slm_jax.sequence_models.t5 import mt5, t5, t5_v1_1

V, L, S, NEW = 41, 19, 17, 12
PAD, END = 0, 1
SHAPE = {"vocab_size": V, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_heads": 3, "num_layers": 3}
SHAPE |= {"num_decoder_layers": 2, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
OURS = {"vocabulary": V, "width": 24, "head_width": 10, "hidden": 40, "heads": 3, "layers": 3}
OURS |= {"relative_bias": RelativeBiasConfig(buckets=8, max_distance=12)}
PAIRS = {
    "t5": ("T5ForConditionalGeneration", {}, t5(**OURS)),
    "t5_v1_1": ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"}, t5_v1_1(**OURS)),
    "mt5": ("MT5ForConditionalGeneration", {}, mt5(**OURS)),
}
"""name -> class, fields of its config beside the shape, what our config must be (but for the decoder's layers)."""
DECODED = ["t5", "t5_v1_1"]

rng = np.random.default_rng(0)
IDS, WRITTEN = rng.integers(2, V, (3, L)), np.concatenate([np.full((3, 1), PAD), rng.integers(2, V, (3, S - 1))], 1)
LENGTHS, WRITTEN_LENGTHS = np.array([[19], [7], [2]]), np.array([[3], [17], [9]])


def beside(lengths: np.ndarray, size: int, side: str) -> np.ndarray:
    return np.arange(size) < lengths if side == "right" else np.arange(size) >= size - lengths


class Pair(NamedTuple):
    """The reference with every weight drawn anew, its folder, our config and parameters read from it, a jitted call."""

    theirs: Any
    folder: Path
    config: EncoderDecoderConfig
    params: dict
    run: Callable


@pytest.fixture(params=PAIRS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, fields, wanted = PAIRS[request.param]
    kind, untied = getattr(transformers, name), request.param != "t5"
    theirs = kind(kind.config_class(**SHAPE, **fields, tie_word_embeddings=not untied))
    if untied:
        part_head(theirs)
    drawn(theirs)
    folder = tmp_path_factory.mktemp(request.param) / "hub"
    theirs.save_pretrained(folder)
    config, params = load(folder)
    assert config == wanted.replace(decoder=wanted.decoder.replace(layers=2))
    model = config.make()
    run = jax.jit(lambda params, *rows: model.apply({"params": params}, *rows))
    return Pair(theirs, folder, config, params, run)


def part_head(theirs: Any) -> None:
    """A head of its own, as published weights of version 1.1 have it; `transformers` 5 ties the drawn ones."""
    import torch

    theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    theirs.all_tied_weights_keys.pop("lm_head.weight")


def drawn(theirs: Any) -> None:
    """Weights under which scores without scale are as large as usual, and a tied head does not say each word again."""
    import torch

    draw_weights(theirs, seed=0, gain=1.5)
    with torch.no_grad():
        theirs.shared.weight.mul_(0.2)
        for name, weight in theirs.named_parameters():
            if name.endswith(".q.weight"):
                weight.mul_(0.2)


def reference(theirs: Any, mask: np.ndarray, written_mask: np.ndarray, **entries: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return theirs(
            **entries,
            attention_mask=torch.tensor(mask.astype(np.int64)),
            decoder_input_ids=torch.tensor(WRITTEN),
            decoder_attention_mask=torch.tensor(written_mask.astype(np.int64)),
        ).logits.numpy()


def assert_same(ours: Any, wanted: np.ndarray, real: np.ndarray) -> None:
    assert np.abs(wanted[real]).max() > 0.1
    difference = np.abs(np.asarray(ours)[real] - wanted[real]).max()
    assert difference <= 1e-5 * max(1.0, np.abs(wanted[real]).max())


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_equal_the_reference_under_padding_of_both_sequences(pair, side):
    import torch

    mask, written = beside(LENGTHS, L, side), beside(WRITTEN_LENGTHS, S, side)
    wanted = reference(pair.theirs, mask, written, input_ids=torch.tensor(IDS))
    assert_same(pair.run(pair.params, IDS, WRITTEN, mask, written), wanted, written)


@pytest.mark.parametrize("pair", DECODED, indirect=True)
def test_vectors_stand_for_ids(pair):
    import torch

    mask, written = beside(LENGTHS, L, "left"), beside(WRITTEN_LENGTHS, S, "right")
    vectors = np.random.default_rng(1).standard_normal((3, L, 24)).astype(np.float32)
    wanted = reference(pair.theirs, mask, written, inputs_embeds=torch.tensor(vectors))
    assert_same(pair.run(pair.params, jnp.asarray(vectors), WRITTEN, mask, written), wanted, written)


def test_every_bias_is_felt(pair):
    """The negative control of the comparisons above: distances count on both sides."""
    mask, written = beside(LENGTHS, L, "right"), beside(WRITTEN_LENGTHS, S, "right")
    plain = np.asarray(pair.run(pair.params, IDS, WRITTEN, mask, written))
    for side in ("encoder", "decoder"):
        bias = jax.tree.map(np.zeros_like, pair.params[side]["relative_bias"])
        without = {**pair.params, side: {**pair.params[side], "relative_bias": bias}}
        assert np.abs(np.asarray(pair.run(without, IDS, WRITTEN, mask, written)) - plain)[written].max() > 1e-2


def encoded(pair: Pair, mask: np.ndarray) -> Any:
    model = pair.config.make()
    return jax.jit(lambda params, *rows: model.apply({"params": params}, *rows, method="encode"))(
        pair.params, IDS, mask
    )


@pytest.mark.parametrize("pair", DECODED, indirect=True)
def test_written_step_by_step_it_equals_the_reference(pair):
    import torch

    mask, everything = beside(LENGTHS, L, "right"), np.ones((3, S), bool)
    wanted = reference(pair.theirs, mask, everything, input_ids=torch.tensor(IDS))
    decoder, params = pair.config.decoder.make(), {"params": jax.tree.map(jnp.asarray, pair.params["decoder"])}
    step = jax.jit(lambda *given: decoder.apply(params, *given, method="step"))
    read = jax.jit(lambda *given: decoder.apply(params, *given, method="prefill"))
    first, state = read(WRITTEN[:, :2], decoder.initial_state(3, S + 4), None, encoded(pair, mask))
    assert_same(first, wanted[:, 1], np.ones(3, bool))
    for at in range(2, S):
        logits, state = step(WRITTEN[:, at : at + 1], state)
        assert_same(logits[:, 0], wanted[:, at], np.ones(3, bool))


@pytest.mark.parametrize("pair", DECODED, indirect=True)
@pytest.mark.parametrize("beams", [1, 4])
def test_written_sequences_equal_those_of_transformers(pair, beams):
    import torch

    mask = beside(LENGTHS, L, "left")
    wanted = pair.theirs.generate(
        torch.tensor(IDS),
        attention_mask=torch.tensor(mask.astype(np.int64)),
        num_beams=beams,
        do_sample=False,
        max_new_tokens=NEW,
        decoder_start_token_id=PAD,
        pad_token_id=PAD,
    )[:, 1:].numpy()
    prompt = np.full((3, 1), PAD), np.ones((3, 1), bool)
    rows = pair.config.decoder.make(), pair.params["decoder"], *prompt
    settings = SamplingConfig(max_new=NEW, temperature=0.0, end=END)
    if beams == 1:
        ours = generate(*rows, jax.random.key(0), settings, context=encoded(pair, mask))
        ids, real = np.asarray(ours.ids), np.asarray(ours.mask)
    else:
        found = beam_search(*rows, settings, BeamConfig(beams=beams), context=encoded(pair, mask))
        ids, real = np.asarray(found.ids)[:, 0], np.asarray(found.mask)[:, 0]
    assert len(np.unique(ids[real])) >= 3
    ended = np.cumsum(wanted == END, 1) - (wanted == END) > 0
    np.testing.assert_array_equal(real[:, : wanted.shape[1]], ~ended)
    np.testing.assert_array_equal(ids[real], wanted[~ended])


def test_what_we_write_is_the_same_model_to_transformers(pair, tmp_path):
    """Bit for bit: names, weights, config (by its logits) and the folder read once more by ourselves."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    export(pair.config, pair.params, tmp_path / "hub", family=pair.theirs.config.model_type, shard_bytes=20_000)
    again, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hub", output_loading_info=True)
    assert not any(report.values())
    assert type(again) is type(pair.theirs)
    for name, weight in pair.theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    masks = np.ones_like(IDS, bool), np.ones_like(WRITTEN, bool)
    wanted, found = (reference(m, *masks, input_ids=torch.tensor(IDS)) for m in (pair.theirs, again.eval()))
    np.testing.assert_array_equal(found, wanted)
    config, params = load(tmp_path / "hub")
    assert config == pair.config
    jax.tree.map(np.testing.assert_array_equal, params, pair.params)


@pytest.mark.parametrize("pair", ["t5_v1_1", "mt5"], indirect=True)
def test_published_configs_say_that_the_head_is_apart_and_nothing_else(pair, tmp_path):
    fields = json.loads((pair.folder / "config.json").read_text())
    assert fields["tie_word_embeddings"] is True  # so says transformers 5, though the file has a head of its own
    fields["tie_word_embeddings"] = False
    fields.pop("scale_decoder_outputs", None)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "model.safetensors").symlink_to(pair.folder / "model.safetensors")
    config, params = load(tmp_path)
    assert config == pair.config
    jax.tree.map(np.testing.assert_array_equal, params, pair.params)


@pytest.mark.parametrize("pair", ["t5"], indirect=True)
def test_files_with_every_copy_of_the_table_are_read(pair, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text((pair.folder / "config.json").read_text())
    save_file({name: w.clone() for name, w in pair.theirs.state_dict().items()}, tmp_path / "model.safetensors")
    config, params = load(tmp_path)
    assert config == pair.config
    jax.tree.map(np.testing.assert_array_equal, params, pair.params)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_the_reference(bidirectional):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    offsets = np.arange(-2000, 2001)
    ours = buckets_of(offsets, RelativeBiasConfig(buckets=32, max_distance=128, bidirectional=bidirectional))
    wanted = T5Attention._relative_position_bucket(torch.tensor(offsets), bidirectional, 32, 128)
    np.testing.assert_array_equal(ours, wanted.numpy())
