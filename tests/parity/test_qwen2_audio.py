"""Qwen2-Audio against `transformers`: encoder, projector, scatter, logits, greedy ids, prompts, files both ways."""

import jax
import numpy as np
import pytest

from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import count_parameters
from slm_jax.data.examples.speech_prompts import SpeechPromptExample, stacked
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_qwen2_audio import QWEN2_AUDIO
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.text import templates
from tests.serving.drawn import noise

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
RATE, WINDOW, SECONDS = 16_000, 16_000, 1
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
MERGES = "user system assistant You are a helpful What is said How about this one Audio sound of glass"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the tokenizers of Qwen cut a text before they look for merges."""
ENCODER = {"num_mel_bins": 24, "d_model": 36, "encoder_layers": 2, "encoder_attention_heads": 3}
ENCODER |= {"encoder_ffn_dim": 50, "max_source_positions": 50}
DECODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
DECODER |= {"intermediate_size": 44, "max_position_embeddings": 256, "rms_norm_eps": 1e-5}
CLIPS = [noise(1.0, 0), noise(1.0, 1)[:9_777], noise(1.0, 2)[:5_000], noise(1.0, 3)[:13_121]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The reference in its folder with a tokenizer made here."""
    folder = tmp_path_factory.mktemp("qwen2_audio")
    ids = write_tokenizer(folder)
    shape = DECODER | {"vocab_size": len(ids)}
    config = transformers.Qwen2AudioConfig(
        audio_config=ENCODER, text_config=shape, audio_token_index=ids.index("<|AUDIO|>")
    )
    model = draw_weights(transformers.Qwen2AudioForConditionalGeneration(config), seed=4, gain=1.3)
    with torch.no_grad():  # speech is heard among the words
        model.model.multi_modal_projector.linear.weight.mul_(2.0)
    model.generation_config.eos_token_id = ids.index("<|im_end|>")
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=SECONDS).save_pretrained(folder)
    return folder


def write_tokenizer(folder) -> list[str]:
    """A small tokenizer of Qwen's kind; its tokens in the order of their ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([MERGES] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|endoftext|>", padding_side="left"
    )
    features = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    return transformers.Qwen2AudioProcessor(features, tokenizer)


@pytest.fixture(scope="module")
def system(folder):
    return qwen_audio.released(folder)


def said(*parts, role="user"):
    """A message in our form."""
    return Message(role, tuple(Text(one) if isinstance(one, str) else Speech(one, RATE) for one in parts))


def as_theirs(conversation):
    """A conversation in the form of a chat template, and its clips."""
    clips, found = [], []
    for message in conversation:
        content = [
            {"type": "audio", "audio_url": "clip"} if isinstance(part, Speech) else {"type": "text", "text": part.text}
            for part in message.parts
        ]
        clips += [part.samples for part in message.speech]
        found.append({"role": message.role, "content": content})
    return found, clips


ANALYSIS = (said(CLIPS[0], "What is said?"),)
TWO_CLIPS = (said(CLIPS[1], CLIPS[2], "How about this one?"),)
VOICE_CHAT = (said("You are a helpful assistant.", role="system"), said(CLIPS[3]))
TURNS = (said(CLIPS[2], "What's that sound?"), said("glass", role="assistant"), said(CLIPS[1], "How about this?"))
WORDS_FIRST = (said("What is said", CLIPS[2]),)
CONVERSATIONS = {
    "words first": WORDS_FIRST,
    "analysis": ANALYSIS,
    "two clips": TWO_CLIPS,
    "voice chat": VOICE_CHAT,
    "turns": TURNS,
}


def prepared(processor, conversations, side):
    """What the processor makes of conversations."""
    pairs = [as_theirs(one) for one in conversations]
    texts = [processor.apply_chat_template(one, add_generation_prompt=True, tokenize=False) for one, _ in pairs]
    processor.tokenizer.padding_side = side
    clips = [clip for _, own in pairs for clip in own]
    return processor(text=texts, audio=clips, sampling_rate=RATE, return_tensors="pt", padding=True)


def our_logits(system, conversations):
    example = SpeechPromptExample(system.layout, SpeechTaskConfig(), RATE, WINDOW, 160, clips=2)
    entries = [system.layout.entries(one, answered=False) for one in conversations]
    pairs = zip(conversations, entries, strict=True)
    batch = stacked([{**example.samples(one), **example.row(own)} for one, own in pairs])
    names = ("samples", "sample_mask", "ids", "speech_at", "mask")
    run = jax.jit(lambda variables, *xs: system.model.apply(variables, *xs))
    return np.asarray(run(system.variables, *(batch[name] for name in names))), batch["mask"]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_of_a_prompt_are_those_of_the_processor(system, processor, name):
    conversation = CONVERSATIONS[name]
    wanted = prepared(processor, [conversation], "left").input_ids[0].numpy()
    entries = system.layout.entries(conversation, answered=False)
    audio = processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    ours = np.where(entries.clip >= 0, audio, entries.ids)
    np.testing.assert_array_equal(ours, wanted)
    counts = [int((entries.clip == place).sum()) for place in range(entries.clip.max() + 1)]
    lengths = [len(clip) for clip in as_theirs(conversation)[1]]
    mels = [-(-n // 160) for n in lengths]
    assert counts == [((mel - 1) // 2 + 1 - 2) // 2 + 1 for mel in mels]


def test_strings_are_the_published_ones(processor):
    """Literally, from one clip with words and one without."""
    text = processor.apply_chat_template(as_theirs(TURNS)[0], add_generation_prompt=True, tokenize=False)
    pieces = templates.QWEN2_AUDIO.pieces(TURNS, answered=False)
    assert "".join("<|AUDIO|>" if piece.clip is not None else piece.text for piece in pieces) == text
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat's that sound?<|im_end|>\n"
        "<|im_start|>assistant\nglass<|im_end|>\n"
        "<|im_start|>user\nAudio 2: <|audio_bos|><|AUDIO|><|audio_eos|>\nHow about this?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_encoder_and_projector_of_padded_clips(system, theirs, processor):
    config = system.model.config
    samples, mask = np.zeros((4, 1, WINDOW), np.float32), np.zeros((4, 1, WINDOW), bool)
    for row, clip in enumerate(CLIPS):
        samples[row, 0, : len(clip)], mask[row, 0, : len(clip)] = clip, True
    read = jax.jit(
        lambda v, s, m: system.model.apply(v, s, m, method=lambda model, s, m: model.speech(model.heard(s, m)))
    )
    out = read(system.variables, samples, mask)
    given = processor.feature_extractor(
        CLIPS, sampling_rate=RATE, return_attention_mask=True, padding="max_length", return_tensors="pt"
    )
    lengths, tokens = theirs.model.audio_tower._get_feat_extract_output_lengths(given.attention_mask.sum(-1))
    hidden = (torch.arange(50) >= lengths[:, None])[:, None, None].expand(-1, 1, 50, -1)
    far = torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
    with torch.no_grad():
        heard = theirs.model.audio_tower(given.input_features, attention_mask=far).last_hidden_state
        wanted = theirs.model.multi_modal_projector(heard).numpy()
    counts = [config.frames_out(len(clip)) for clip in CLIPS]
    assert counts == np.asarray(out.mask).sum(1).tolist() == tokens.tolist()
    scale = max(1.0, float(np.abs(wanted).max()))
    for row, count in enumerate(counts):
        np.testing.assert_allclose(out.values[row, :count], wanted[row, :count], atol=TOLERANCE * scale)
        assert np.abs(wanted[row, :count]).std() > 0.2


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_a_padded_batch(system, theirs, processor, side):
    """Rows of one and two clips of several lengths; ours stand on the left, theirs on either side."""
    conversations = [ANALYSIS, TWO_CLIPS, VOICE_CHAT]
    given = prepared(processor, conversations, side)
    with torch.no_grad():
        wanted = theirs(**given).logits.numpy()
    ours, mask = our_logits(system, conversations)
    real = given.attention_mask.numpy().astype(bool)
    assert not real.all() and real.sum(1).tolist() == mask.sum(1).tolist()
    for row in range(3):
        theirs_row, scale = wanted[row][real[row]], max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(ours[row][mask[row]], theirs_row, atol=TOLERANCE * scale)
        assert theirs_row.std() > 0.3
    swapped, other = our_logits(system, [(said(CLIPS[1][::-1].copy(), CLIPS[2], "How about this one?"),)])
    assert np.abs(swapped[0][other[0]][-1] - ours[1][mask[1]][-1]).max() > 100 * TOLERANCE, "nothing is heard"


def test_greedy_ids_are_those_of_generate(system, theirs, processor):
    conversations = [ANALYSIS, TWO_CLIPS, VOICE_CHAT]
    given = prepared(processor, conversations, "left")
    with torch.no_grad():
        out = theirs.generate(**given, max_new_tokens=12, do_sample=False)[:, given.input_ids.shape[1] :].tolist()
    end = system.layout.end_id
    wanted = [row[: row.index(end) + 1] if end in row else row for row in out]
    replies = system.respond(conversations, AnswerDecoding(max_new=12), jax.random.key(0))
    assert len({tuple(row) for row in wanted}) == 3, wanted
    assert [reply.trace["ids"].tolist() for reply in replies] == wanted


def test_folders_go_both_ways(folder, theirs, tmp_path):
    config, params = load(folder)
    assert config.speech_id == SPECIALS.index("<|AUDIO|>") and config.lm.norm_epsilon == 1e-5
    assert config.encoder == WhisperEncoderConfig(
        mel=config.encoder.mel, layers=2, width=36, heads=3, hidden=50, max_frames=50, trim=True, final_norm=False
    )
    assert count_parameters(params) == sum(p.numel() for p in theirs.parameters())
    export(config, params, tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again[0] == config
    jax.tree.map(np.testing.assert_array_equal, again[1], params)
    back = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "ours")
    for name, weight in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name
    read = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert (read.feature_size, read.n_samples) == (24, WINDOW)
    names = set(theirs.state_dict())
    assert "model.audio_tower.layer_norm.weight" in names and "lm_head.weight" in names  # as they are in memory
    weights = {name: value.numpy() for name, value in theirs.state_dict().items()}
    plan = resolve(
        QWEN2_AUDIO.table(config, "transformers"),
        {n: w.shape for n, w in weights.items()},
        QWEN2_AUDIO.abstract(config),
    )
    jax.tree.map(np.testing.assert_array_equal, import_params(plan, weights.__getitem__), params)


def test_the_published_size_has_as_many_parameters_as_the_class():
    model = qwen_audio.model("qwen2-audio")
    hub = QWEN2_AUDIO.write_config(model)
    shape = transformers.Qwen2AudioConfig(audio_config=hub["audio_config"], text_config=hub["text_config"])
    with torch.device("meta"):
        theirs = transformers.Qwen2AudioForConditionalGeneration(shape)
    count = count_parameters(QWEN2_AUDIO.abstract(model))
    assert count == sum(p.numel() for p in theirs.parameters())
    assert 8.3e9 < count < 8.5e9
    assert QWEN2_AUDIO.read_config(hub).encoder == model.encoder.replace(dtype="float32", remat=False)
