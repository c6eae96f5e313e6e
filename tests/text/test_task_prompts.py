"""Prefixes out of what is asked: the specifiers of UniverSLU, instructions, and what cannot be asked."""

import json

import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.text.whisper_tokens import PlainPromptsConfig, WhisperFolderConfig, WhisperTokens
from tests.whisper_folder import END, LANGUAGES, NO_TIMES, SETTINGS, START, TRANSCRIBE, TRANSLATE, write_tokenizer

SPECIFIERS = ("<|er|>", "<|iemocap|>")
ER, IEMOCAP = 38, 39


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "generation_config.json").write_text(json.dumps(SETTINGS))
    return write_tokenizer(folder)


@pytest.fixture(scope="module")
def prompts(folder):
    return TaskPrompts(WhisperFolderConfig(folder=str(folder), size=38).make(), SPECIFIERS)


ASKED = {
    "<|en|> <|er|> <|iemocap|>": [START, LANGUAGES["en"], ER, IEMOCAP, NO_TIMES],
    "<|er|> <|iemocap|>": [START, LANGUAGES["en"], ER, IEMOCAP, NO_TIMES],
    "<|nl|>  <|translate|> <|iemocap|>": [START, LANGUAGES["nl"], TRANSLATE, IEMOCAP, NO_TIMES],
    "w3 w4 w5": [START, LANGUAGES["en"], 3, 4, 5, NO_TIMES],
    "<|cs|> w3 w4": [START, LANGUAGES["cs"], 3, 4, NO_TIMES],
    "": [START, LANGUAGES["en"], TRANSCRIBE, NO_TIMES],
    "<|cs|>": [START, LANGUAGES["cs"], TRANSCRIBE, NO_TIMES],
}


@pytest.mark.parametrize("asked", ASKED)
def test_prefixes_are_as_published(prompts, asked):
    assert prompts.prefix(asked) == ASKED[asked]


def test_answers_are_words_and_an_end_and_come_back(prompts):
    assert prompts.answer("w7 w1") == [7, 1, END]
    assert prompts.decode([7, ER, 1, END, IEMOCAP]) == "w7 w1"
    assert (prompts.size, prompts.tokens.tokenizer.size) == (40, 38)


def test_only_what_prompts_hold_is_never_said(prompts):
    """Whisper keeps back more, such as a colon, which labels may hold."""
    assert set(prompts.never) == {START, NO_TIMES, TRANSCRIBE, TRANSLATE, ER, IEMOCAP, *LANGUAGES.values()}
    assert 1 in prompts.tokens.never and 1 not in prompts.never


def test_an_english_model_needs_no_language_and_has_no_task(folder, tmp_path):
    (tmp_path / "generation_config.json").write_text('{"is_multilingual": false}')
    prompts = TaskPrompts(WhisperTokens(write_tokenizer(tmp_path)), SPECIFIERS)
    assert prompts.prefix("") == [START, NO_TIMES]
    assert prompts.prefix("<|er|>") == [START, ER, NO_TIMES]
    with pytest.raises(UserError, match="a specifier is one of"):
        prompts.prefix("<|transcribe|>")


WRONG = {
    "<|err|>": r"asked is '<\|err\|>': a specifier is one of .*did you mean '<\|er\|>'",
    "w1 <|er|>": "specifiers stand alone, without other words",
    "<|er|> <|en|>": r"asked is '<\|en\|>': a specifier",
}


@pytest.mark.parametrize("asked", WRONG)
def test_what_cannot_be_asked_says_why(prompts, asked):
    with pytest.raises(UserError, match=WRONG[asked]):
        prompts.prefix(asked)


def test_bad_specifiers_and_sizes_are_refused(prompts, folder):
    for bad, message in ((("er",), "is written"), (("<|en|>",), "there already"), (SPECIFIERS * 2, "there already")):
        with pytest.raises(UserError, match=message):
            TaskPrompts(prompts.tokens, bad)
    with pytest.raises(UserError, match=r"size of the tokens in .* is 51865: there are 38"):
        WhisperFolderConfig(folder=str(folder)).make()


def test_tokens_of_ones_own_have_whispers_specials():
    plain = SpecialsConfig(specials=(), tokenizer=CharacterTokenizerConfig(characters="abc "))
    config = PlainPromptsConfig(languages=("en", "de"), plain=plain)
    tokens = config.make()
    assert from_json(config.to_json()) == config and config.size == tokens.tokenizer.size == 11
    assert tokens.languages == {"en": 2, "de": 3} and (tokens.end, tokens.start, tokens.no_times) == (0, 1, 6)
    assert tokens.prefix("de", "translate") == [1, 3, 5, 6]
    assert set(tokens.never) == {1, 2, 3, 4, 5, 6} and tokens.not_first == (0,)
    assert TaskPrompts(tokens, ("<|er|>",)).prefix("<|de|> ab c") == [1, 3, 7, 8, 10, 9, 6]
    assert PlainPromptsConfig().size == 256 + 6
    with pytest.raises(UserError, match="languages"):
        PlainPromptsConfig(languages=())
