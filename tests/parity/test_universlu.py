"""UniverSLU against `WhisperForConditionalGeneration`: a table with new rows, forced prefixes of several lengths."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.messages import Message, Speech, Text
from slm_jax.interop.model import load
from slm_jax.interop.reference import draw_weights
from slm_jax.sequence_models.expansion import expanded
from slm_jax.serving.task_whisper import TaskDecoding, TaskWhisper
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.whisper_tokens import WhisperTokens
from tests.serving.drawn import noise
from tests.whisper_folder import END, LANGUAGES, NO_TIMES, SETTINGS, START, write_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS, MAX_NEW = 38, 10
SPECIFIERS = ("<|er|>", "<|iemocap|>", "<|ic|>")
ASKED = ("<|en|> <|er|> <|iemocap|>", "w3 w4 w5 w6 w7", "<|cs|> <|ic|>")
PREFIXES = (
    [START, LANGUAGES["en"], 38, 39, NO_TIMES],
    [START, LANGUAGES["en"], 3, 4, 5, 6, 7, NO_TIMES],
    [START, LANGUAGES["cs"], 40, NO_TIMES],
)
CLIPS = [noise(1.0, 0), noise(0.6, 1), noise(0.02, 2)]
SHAPE = {
    "vocab_size": TOKENS,
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 44,
    "num_mel_bins": 24,
    "max_source_positions": 50,
    "max_target_positions": 24,
    "decoder_start_token_id": START,
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": END,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Our system, and their model with our new rows in its table."""

    ours: TaskWhisper
    theirs: object

    def answer(self, row, **settings):
        """What theirs says behind a prefix, and its score."""
        extractor = transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=1)
        features = extractor(CLIPS[row], sampling_rate=16_000, return_tensors="pt").input_features
        given = {"decoder_input_ids": torch.tensor([PREFIXES[row]]), "suppress_tokens": list(self.ours.prompts.never)}
        given |= {"begin_suppress_tokens": [END], "max_new_tokens": MAX_NEW, "do_sample": False}
        with torch.no_grad():
            out = transformers.GenerationMixin.generate(
                self.theirs, features, **given, **settings, return_dict_in_generate=True, output_scores=True
            )
        beams = [row[len(given["decoder_input_ids"][0]) :].tolist() for row in out.sequences]
        ends = [ids.index(END) + 1 if END in ids else len(ids) for ids in beams]
        return [ids[:end] for ids, end in zip(beams, ends, strict=True)], out.get("sequences_scores")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    model = draw_weights(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SHAPE)), 4, gain=1.4)
    with torch.no_grad():  # heard enough that rows differ
        for layer in model.model.decoder.layers:
            layer.encoder_attn.v_proj.weight.mul_(3.0)
        model.model.decoder.embed_positions.weight.normal_(std=1.5, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(SETTINGS))
    transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=1).save_pretrained(folder)
    config, params = load(folder)
    decoder, grown = expanded(config.decoder, params["decoder"], len(SPECIFIERS), jax.random.key(0))
    params = jax.tree.map(jnp.asarray, {**params, "decoder": grown})
    prompts = TaskPrompts(WhisperTokens(write_tokenizer(folder)), SPECIFIERS)
    system = TaskWhisper(config.replace(decoder=decoder), params, prompts, TaskDecoding(max_new=MAX_NEW))
    model.resize_token_embeddings(TOKENS + len(SPECIFIERS), mean_resizing=False)
    rows = torch.tensor(np.asarray(params["decoder"]["tokens"]["embedding"]))
    with torch.no_grad():
        model.get_input_embeddings().weight[TOKENS:] = rows[TOKENS:]
    model.generation_config = transformers.GenerationConfig(pad_token_id=END, eos_token_id=END, bos_token_id=END)
    return Pair(system, model.eval())


def conversations():
    return [(Message("user", (Speech(clip, 16_000), Text(words))),) for clip, words in zip(CLIPS, ASKED, strict=True)]


def test_the_resized_table_keeps_old_rows_and_the_head_is_the_table(pair):
    theirs = pair.theirs.get_input_embeddings().weight
    np.testing.assert_array_equal(theirs.detach().numpy(), pair.ours.params["decoder"]["tokens"]["embedding"])
    assert pair.theirs.get_output_embeddings().weight is theirs and theirs.shape == (41, 36)
    assert pair.ours.model.config.decoder.vocabulary == 41


def test_logits_behind_every_prefix(pair):
    extractor = transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=1)
    features = extractor(CLIPS, sampling_rate=16_000, return_tensors="pt").input_features
    samples = np.stack([np.pad(clip, (0, 16_000 - len(clip))) for clip in CLIPS])
    sample_mask = np.arange(16_000) < np.array([[len(clip)] for clip in CLIPS])
    ids = np.array([np.pad(prefix, (0, 8 - len(prefix))) for prefix in PREFIXES], np.int32)
    mask = np.arange(8) < np.array([[len(prefix)] for prefix in PREFIXES])
    run = jax.jit(lambda params, *rows: pair.ours.model.apply({"params": params}, *rows))
    with torch.no_grad():
        wanted = pair.theirs(features, decoder_input_ids=torch.tensor(ids)).logits.numpy()
    found = np.asarray(run(pair.ours.params, samples, ids, sample_mask, mask))
    np.testing.assert_allclose(found[mask], wanted[mask], atol=2e-5 * np.abs(wanted).max())
    assert [pair.ours.prompts.prefix(words) for words in ASKED] == list(PREFIXES)


@pytest.mark.parametrize("beams", [1, 4])
def test_answers_behind_forced_prefixes(pair, beams):
    """Ours are read together, with prefixes of 5, 8 and 4 ids; theirs one by one."""
    replies = pair.ours.respond(conversations(), TaskDecoding(max_new=MAX_NEW, beams=beams), jax.random.key(0))
    said = []
    for row, reply in enumerate(replies):
        (wanted, *_), scores = pair.answer(row, num_beams=beams)
        said.append(wanted)
        assert reply.trace["ids"].tolist() == wanted
        if scores is not None:
            np.testing.assert_allclose(reply.trace["scores"][0], float(scores[0]), atol=1e-4)
    assert len(set(map(tuple, said))) == 3 and max(len(set(ids)) for ids in said) > 3


def test_the_n_best_are_the_same_in_order(pair):
    (reply,) = pair.ours.respond(conversations()[1:2], TaskDecoding(max_new=MAX_NEW, beams=4), jax.random.key(0))
    wanted, scores = pair.answer(1, num_beams=4, num_return_sequences=4)
    assert reply.trace["n_best"] == [pair.ours.prompts.decode(ids) for ids in wanted]
    np.testing.assert_allclose(reply.trace["scores"], scores, atol=1e-4)
