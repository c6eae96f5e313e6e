"""Text tokenizers: exact inverses and readable refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.text.tokenizers import ByteTokenizerConfig, CharacterTokenizerConfig, TokenizerFileConfig, spelling_hash


@given(st.text())
def test_bytes_invert(text):
    tokenizer = ByteTokenizerConfig().make()
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.size for i in ids)
    assert tokenizer.decode(ids) == text


def test_broken_bytes_do_not_raise():
    assert ByteTokenizerConfig().make().decode([0xC4]) == "\ufffd"
    with pytest.raises(UserError, match="byte ids"):
        ByteTokenizerConfig().make().decode([256])


def test_characters_by_hand():
    config = CharacterTokenizerConfig.of_texts(["bad", "cab"])
    tokenizer = config.make()
    assert config.characters == "abcd"
    assert tokenizer.encode("dab") == [3, 0, 1]
    assert tokenizer.decode([2, 0, 1]) == "cab"
    assert from_json(config.to_json()) == config
    with pytest.raises(UserError, match="unknown characters 'xy'"):
        tokenizer.encode("yax")


def test_characters_with_a_stand_in():
    tokenizer = CharacterTokenizerConfig.of_texts(["ab"], unknown="?").make()
    assert tokenizer.decode(tokenizer.encode("azb")) == "a?b"
    with pytest.raises(UserError, match="unknown"):
        CharacterTokenizerConfig(characters="ab", unknown="c")


def test_tokenizer_file(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<s>": 0, "the": 1, "cat": 2, "[UNK]": 3}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TokenizerFileConfig(path=str(tmp_path / "tokenizer.json")).make()
    assert tokenizer.size == 4
    assert tokenizer.encode("the cat the") == [1, 2, 1]
    assert tokenizer.decode([0, 1, 2]) == "the cat"
    assert tokenizer.special("<s>") == 0
    with pytest.raises(UserError, match="no token"):
        tokenizer.special("</s>")


def test_tokenizer_file_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        TokenizerFileConfig(path=str(tmp_path / "absent.json")).make()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer file"):
        TokenizerFileConfig(path=str(tmp_path / "bad.json")).make()


def test_a_hash_tells_tokenizers_apart_by_what_ids_spell_alone():
    one, other = (CharacterTokenizerConfig(characters=letters).make() for letters in ("ab ", "ba "))
    assert spelling_hash(one) == spelling_hash(CharacterTokenizerConfig(characters="ab ", unknown="a").make())
    assert len({spelling_hash(one), spelling_hash(other), spelling_hash(ByteTokenizerConfig().make())}) == 3
