"""Beam search against `generate` of transformers: GPT-2 and LLaMA with drawn weights, prompts of several lengths."""

import numpy as np
import pytest

from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.model import load
from slm_jax.interop.reference import draw_weights

V, L, NEW, PAD = 41, 6, 10, 1
LENGTHS = np.array([6, 2, 4])
IDS = np.random.default_rng(0).integers(2, V, (3, L))
MASK = np.arange(L) >= L - LENGTHS[:, None]  # padded on the left, as transformers wants it
SHAPES = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    "llama": (
        "LlamaForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        | {"intermediate_size": 48, "max_position_embeddings": 32},
    ),
}
RULES = {
    "plain": (BeamConfig(), SamplingConfig(max_new=NEW, end=3)),
    "ends, early": (
        BeamConfig(length_penalty=2.0, early_stopping=True),
        SamplingConfig(max_new=NEW, end=3, ends=(5, 7, 9, 11), min_new=2),
    ),
    "never": (BeamConfig(length_penalty=0.0, early_stopping="never"), SamplingConfig(max_new=NEW, ends=(3, 5, 9))),
    "for short ones": (
        BeamConfig(length_penalty=-1.0, early_stopping="never"),
        SamplingConfig(max_new=NEW, ends=(5, 6)),
    ),
    "no end": (BeamConfig(length_penalty=0.7), SamplingConfig(max_new=NEW, forbidden=(2, 8))),
}


CASES = [("gpt2", "plain", 1), ("gpt2", "plain", 4), ("gpt2", "plain", 20)]
CASES += [("llama", "ends, early", 1), ("llama", "ends, early", 4), ("llama", "ends, early", 20)]
CASES += [("llama", "never", 4), ("llama", "for short ones", 4), ("llama", "no end", 4)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Of each family the reference, and ours with its weights."""
    import transformers

    made = {}
    for name, (kind, shape) in SHAPES.items():
        cls = getattr(transformers, kind)
        theirs = draw_weights(cls(cls.config_class(vocab_size=V, **shape)), seed=3, gain=1.5)
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        config, params = load(folder)
        made[name] = theirs, config.make(), params
    return made


def reference(theirs, beams, config):
    import torch

    ends = list(config.all_ends)
    out = theirs.generate(
        torch.tensor(np.where(MASK, IDS, PAD)),
        attention_mask=torch.tensor(MASK),
        num_beams=beams.beams,
        num_return_sequences=beams.beams,
        length_penalty=beams.length_penalty,
        early_stopping=beams.early_stopping,
        max_new_tokens=config.max_new,
        min_new_tokens=config.min_new or None,
        eos_token_id=ends or None,
        suppress_tokens=list(config.forbidden) or None,
        pad_token_id=PAD,
        do_sample=False,
        output_scores=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new = out.sequences[:, L:].numpy()
    if beams.beams > 1:
        return new, out.sequences_scores.numpy()
    steps = torch.stack(out.logits, 1).log_softmax(-1).gather(2, out.sequences[:, L:, None])[..., 0].numpy()
    ended = np.cumsum(np.isin(new, ends), 1) - np.isin(new, ends) > 0
    return new, np.where(ended, 0, steps).sum(1) / (~ended).sum(1) ** beams.length_penalty


@pytest.mark.parametrize("family, rules, beams", CASES)
def test_sequences_and_scores_are_those_of_transformers(pairs, family, rules, beams):
    theirs, model, params = pairs[family]
    beams, config = RULES[rules][0].replace(beams=beams), RULES[rules][1]
    wanted, wanted_scores = reference(theirs, beams, config)
    ours = beam_search(model, params, IDS, MASK, config, beams)
    ids, mask = np.asarray(ours.ids).reshape(-1, NEW), np.asarray(ours.mask).reshape(-1, NEW)
    scores = np.asarray(ours.scores).reshape(-1)
    whole = wanted_scores > -1e8  # below that a row of the reference has fewer finished sequences than beams
    np.testing.assert_array_equal(mask.any(1), whole)
    np.testing.assert_allclose(scores[whole], wanted_scores[whole], atol=1e-4)
    for mine, real, other in zip(ids[whole], mask[whole], wanted[whole], strict=True):
        length = int(real.sum())
        assert mine[:length].tolist() == other[:length].tolist()
        assert (other[length:] == PAD).all()
