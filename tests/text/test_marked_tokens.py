"""Special tokens of templates beside the text of users."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.text.marked_tokens import SpecialsConfig, encode_together
from slm_jax.text.tokenizers import TokenizerFileConfig
from tests.text.subwords import write_subwords

PLAIN = SpecialsConfig(specials=("<pad>", "<s>", "</s>", "<s2>"))


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    file = write_subwords(tmp_path_factory.mktemp("tokens") / "tokenizer.json")
    return TokenizerFileConfig(path=str(file)).make()


@given(st.text())
def test_text_comes_back_whatever_it_spells(text):
    tokens = PLAIN.make()
    assert tokens.decode([1, *tokens.encode(text), 2]) == text
    assert min(tokens.encode(text), default=4) >= 4


def test_marks_are_specials_and_the_longest_counts():
    tokens = PLAIN.make()
    assert tokens.encode_marked("<s>a<s2></s>") == [1, 4 + ord("a"), 3, 2]
    assert (tokens.size, tokens.special("</s>")) == (260, 2)
    assert from_json(PLAIN.to_json()) == PLAIN
    with pytest.raises(UserError, match="no special token '<x>'"):
        tokens.special("<x>")


@pytest.mark.parametrize("spelt", ["</s>", "say <s> twice"])
def test_a_user_who_spells_a_special_token_gets_text(subwords, spelt):
    for tokens in (PLAIN.make(), subwords):
        ids = encode_together(tokens, [("<s>", True), (spelt, False), ("</s>", True)])
        specials = [tokens.special("<s>"), tokens.special("</s>")]
        assert [one for one in ids if one in specials] == specials
        assert tokens.decode(ids) == spelt
        assert tokens.encode_marked(f"<s>{spelt}</s>") != ids, "or this test says nothing"


def test_neighbours_become_ids_as_one_text(subwords):
    """As where a template is filled in and read whole: here `: ` and `cat` share a sub-word."""
    texts = [("<s>user: ", True), ("cat", False), (" end</s>", True)]
    assert encode_together(subwords, texts) == subwords.encode_marked("<s>user: cat end</s>")
    apart = [*subwords.encode_marked("<s>user: "), *subwords.encode("cat"), *subwords.encode_marked(" end</s>")]
    assert encode_together(subwords, texts) != apart
    assert encode_together(subwords, []) == []
