import pytest

from slm_jax.core.errors import UserError
from slm_jax.text.learnt_tokens import LearntTokensConfig
from slm_jax.text.tokenizers import TokenizerFileConfig

TEXTS = ["the cat sat on the mat", "the cat ate the rat", "a rat on a mat"] * 3


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(LearntTokensConfig(size=300).learn(TEXTS))
    return TokenizerFileConfig(path=str(file)).make()


def test_any_text_comes_back_and_known_ones_are_short(tokens):
    for text in (*TEXTS, "Ünseen — 猫\n  twice", ""):
        assert tokens.decode(tokens.encode(text)) == text
    assert len(tokens.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    assert max(tokens.encode(TEXTS[0])) < tokens.size <= 300


def test_specials_come_first_and_are_no_text(tokens):
    assert [tokens.special(name) for name in ("<pad>", "<s>", "</s>")] == [0, 1, 2]
    assert 1 not in tokens.encode("<s>") and tokens.encode_marked("<s>") == [1]


def test_equal_texts_give_equal_tokens_and_too_few_ids_are_refused():
    assert LearntTokensConfig(size=300).learn(TEXTS) == LearntTokensConfig(size=300).learn(iter(TEXTS))
    with pytest.raises(UserError, match="at least 259"):
        LearntTokensConfig(size=256)
