"""Text and what was put behind it as one id space: where marks count, and tokenizers that know them already."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from slm_jax.core.errors import UserError
from slm_jax.interop.more_tokens import add_tokens
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.joint_tokens import JointTokens, check_ids
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.tokenizers import TokenizerFileConfig

VOCABULARY = ExpandedVocabulary(text=264, specials=("[Text]", "[Speech]"), ranges=(("units", 6),))
TOKENS = JointTokens(SpecialsConfig().make(), VOCABULARY)


def test_marks_count_in_templates_only():
    assert TOKENS.encode_marked("<s>[Speech]a") == [1, 265, ord("a") + 3]
    assert TOKENS.encode("[Text]") == [byte + 3 for byte in b"[Text]"]
    assert (TOKENS.size, TOKENS.special("</s>"), TOKENS.special("[Text]")) == (272, 2, 264)
    assert TOKENS.decode([1, 265, 268, ord("a") + 3, 2]) == "a"


def test_speech_is_the_ranges_and_nothing_behind_them():
    assert TOKENS.is_speech(np.array([100, 264, 265, 266, 271, 272, 300])).tolist() == [
        False, False, False, True, True, False, False
    ]  # fmt: skip


def test_what_must_agree_changes_with_the_ids_and_with_what_they_spell():
    other = JointTokens(SpecialsConfig(specials=("<s>", "<pad>", "</s>")).make(), VOCABULARY)
    wider = JointTokens(SpecialsConfig().make(), VOCABULARY.replace(ranges=(("units", 7),)))
    assert other.meta["vocabulary_hash"] == TOKENS.meta["vocabulary_hash"]
    assert wider.meta["vocabulary_hash"] != TOKENS.meta["vocabulary_hash"]
    assert wider.meta["spelling"] == TOKENS.meta["spelling"]
    assert "units 266..271" in wider.vocabulary.explain_difference(VOCABULARY)
    assert VOCABULARY.explain_difference(VOCABULARY) == ""


@pytest.fixture
def file(tmp_path):
    words = {"<unk>": 0, "so": 1, "it": 2, "is": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_added_tokens_are_found_at_their_ids(file):
    """As published: SpiRit-LM's marks before its units, SpeechGPT's behind them."""
    add_tokens(file, ("[Text]", "[Speech]", *(f"[Hu{i}]" for i in range(3))))
    tokens = TokenizerFileConfig(path=str(file)).make()
    vocabulary = ExpandedVocabulary(text=4, specials=("[Text]", "[Speech]"), ranges=(("units", 3),))
    check_ids(tokens, vocabulary, (("units", "[Hu{}]"),))
    joint = JointTokens(tokens, vocabulary)
    assert joint.encode_marked("[Speech]so it") == [5, 1, 2] and joint.decode([4, 1, 6, 2]) == "so it"
    assert joint.encode("[Text]") != [4]
    with pytest.raises(UserError, match=r"id of \[Text\] is 4: the vocabulary has 7"):
        JointTokens(tokens, vocabulary.replace(specials_last=True))
    with pytest.raises(UserError, match=r"has no token '<0>'"):
        check_ids(tokens, vocabulary, (("units", "<{}>"),))


def test_marks_may_stand_behind_the_ranges(file):
    add_tokens(file, (*(f"<{i}>" for i in range(3)), "<sosp>", "<eosp>"))
    tokens = TokenizerFileConfig(path=str(file)).make()
    last = ExpandedVocabulary(text=4, specials=("<sosp>", "<eosp>"), ranges=(("units", 3),), specials_last=True)
    check_ids(tokens, last, (("units", "<{}>"),))
    assert (last.bounds("units"), last.special("<sosp>")) == ((4, 7), 7)
