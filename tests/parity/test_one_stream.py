"""SpeechGPT and SpiRit-LM as published: LLaMA folders with a table that was made wider, their tokens at their ids.

The weights are gated or too large to fetch; folders are made with the released names, ids and numbers of rows.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from slm_jax.data.examples.one_stream import OneStream, StreamOf, rendered
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.model import export, load
from slm_jax.interop.more_tokens import add_tokens
from slm_jax.sequence_models.expansion import expanded
from slm_jax.systems.speech_text import speechgpt, spirit_lm
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.joint_tokens import JointTokens, check_ids
from slm_jax.text.tokenizers import TokenizerFileConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = 32_000
SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3}
SHAPE |= {"intermediate_size": 40, "vocab_size": TEXT, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}


class Published(NamedTuple):
    """Names of the new tokens in the order of their ids, rows of the table, how the units are spelt, our vocabulary."""

    tokens: tuple[str, ...]
    rows: int
    spelling: tuple[tuple[str, str], ...]
    vocabulary: ExpandedVocabulary


HU, PI, ST = (tuple(f"[{name}{i}]" for i in range(size)) for name, size in (("Hu", 501), ("Pi", 64), ("St", 100)))
BASE = ExpandedVocabulary(text=TEXT, specials=spirit_lm.MARKS, ranges=(("units", 501),))
EXPRESSIVE = BASE.replace(ranges=(("units", 501), ("pitch", 64), ("style", 100)))
CHAIN = ExpandedVocabulary(text=TEXT, specials=speechgpt.MARKS, ranges=(("units", 1000),), specials_last=True)
FAMILIES = {
    "spirit_lm_base": Published((*spirit_lm.MARKS, *HU), 32_512, (("units", "[Hu{}]"),), BASE),
    "spirit_lm_expressive": Published(
        (*spirit_lm.MARKS, *HU, *PI, *ST),
        32_768,
        (("units", "[Hu{}]"), ("pitch", "[Pi{}]"), ("style", "[St{}]")),
        EXPRESSIVE,
    ),
    "speechgpt": Published((*(f"<{i}>" for i in range(1000)), *speechgpt.MARKS), 33_006, (("units", "<{}>"),), CHAIN),
}


class Pair(NamedTuple):
    """The reference, its folder, what we read of it, and the id space."""

    published: Published
    theirs: Any
    folder: Path
    config: Any
    params: Any
    tokens: JointTokens


def write_tokenizer(folder: Path) -> None:
    """Words `w3` ... behind the specials of LLaMA, 32,000 ids."""
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, TEXT)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    published, folder = FAMILIES[request.param], tmp_path_factory.mktemp(request.param)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
    theirs.resize_token_embeddings(published.rows, mean_resizing=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    theirs.eval().save_pretrained(folder)
    write_tokenizer(folder)
    add_tokens(folder / "tokenizer.json", published.tokens)
    tokens = JointTokens(TokenizerFileConfig(path=str(folder / "tokenizer.json")).make(), published.vocabulary)
    config, params = load(folder)
    return Pair(published, theirs, folder, config, jax.tree.map(jnp.asarray, params), tokens)


def rows_of(pair):
    """Two rows of text, marks and units, the second shorter, and their mask."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, pair.published.vocabulary.size, (2, 12))
    ids[:, 4:8] = rng.integers(TEXT, pair.published.vocabulary.size, (2, 4))
    return ids, np.arange(12) < np.array([[12], [7]])


def test_logits_over_the_wider_table(pair):
    assert pair.config.vocabulary == pair.published.rows
    ids, mask = rows_of(pair)
    with torch.no_grad():
        wanted = pair.theirs(torch.tensor(ids), attention_mask=torch.tensor(mask.astype(int))).logits.numpy()
    found = pair.config.make().apply({"params": pair.params}, jnp.asarray(ids, jnp.int32), mask=jnp.asarray(mask))
    assert np.abs(wanted[mask]).max() > 0.5
    np.testing.assert_allclose(np.asarray(found)[mask], wanted[mask], atol=1e-4)


def test_what_we_write_is_the_same_model(pair, tmp_path):
    export(pair.config, pair.params, tmp_path / "hub")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hub")
    for name, weight in pair.theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_the_likeliest_units_are_those_of_the_reference(pair):
    """A prompt of text and units; only ids of speech may follow."""
    ids = rows_of(pair)[0][:1]
    legal = np.pad(pair.tokens.speech, (0, pair.published.rows - pair.tokens.size))
    never = np.flatnonzero(~legal).tolist()
    sampling = SamplingConfig(max_new=8, temperature=0.0, forbidden=tuple(never))
    found = generate(pair.config.make(), pair.params, ids, np.ones_like(ids, bool), jax.random.key(0), sampling)
    given = torch.tensor(ids)
    with torch.no_grad():
        for _ in range(8):
            logits = pair.theirs(given).logits[:, -1].masked_fill(torch.tensor(~legal), -torch.inf)
            given = torch.cat([given, logits.argmax(-1, keepdim=True)], 1)
    np.testing.assert_array_equal(np.asarray(found.ids), given.numpy()[:, ids.shape[1] :])


def test_added_tokens_stand_at_their_ids(pair):
    check_ids(pair.tokens.tokens, pair.published.vocabulary, pair.published.spelling)
    words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(pair.folder / "tokenizer.json"))
    assert words.convert_ids_to_tokens(list(range(TEXT, pair.tokens.size))) == list(pair.published.tokens)
    assert pair.published.rows - pair.tokens.size == {33_006: 0, 32_512: 9, 32_768: 101}[pair.published.rows]


def test_prompts_are_what_the_tokenizer_makes_of_them_spelt_out(pair):
    first, form = pair.published.spelling[0]
    units = np.array([7, 3, 500])
    stream = OneStream(pair.tokens, tuple(StreamOf(name, name, 50.0) for name, _ in pair.published.spelling))
    nothing = [np.zeros(0, int)] * (len(stream.streams) - 1)
    mark = pair.published.vocabulary.specials[int("[Speech]" in pair.published.tokens)]
    ids = rendered(
        pair.tokens, f"{mark}{{speech}} {{text}}", {"speech": stream.speech([units, *nothing]), "text": "w9 w3"}
    )
    spelt = f"{mark}{''.join(form.format(i) for i in units)} w9 w3"
    assert ids.tolist() == Tokenizer.from_file(str(pair.folder / "tokenizer.json")).encode(spelt).ids
    np.testing.assert_array_equal(stream.units(ids), units)


def test_ids_of_the_released_tables():
    assert [BASE.special(mark) for mark in spirit_lm.MARKS] == [32_000, 32_001]
    assert [EXPRESSIVE.bounds(name) for name in ("units", "pitch", "style")] == [
        (32_002, 32_503), (32_503, 32_567), (32_567, 32_667)
    ]  # fmt: skip
    assert CHAIN.bounds("units") == (32_000, 33_000)
    assert [CHAIN.special(mark) for mark in ("<sosp>", "<eosp>", "[Human]", "<eos>")] == [
        33_000,
        33_001,
        33_002,
        33_005,
    ]
    assert [named.vocabulary.size for named in FAMILIES.values()] == [32_503, 32_667, 33_006]


def test_a_text_model_made_wider_by_us_is_one_that_they_read(tmp_path):
    """Old rows to the bit; logits of old ids are those of the text model."""
    text = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE | {"vocab_size": 50})).eval()
    text.save_pretrained(tmp_path / "text")
    config, params = load(tmp_path / "text")
    wide, grown = expanded(config, params, 14, jax.random.key(0), multiple=32)
    export(wide, jax.tree.map(jnp.asarray, grown), tmp_path / "wide")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "wide").eval()
    assert theirs.get_input_embeddings().weight.shape == (64, 24)
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits[..., :50], text(ids).logits)
