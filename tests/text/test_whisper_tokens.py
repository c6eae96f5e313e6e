"""What Whisper's decoder is told and must not say, as the files of a model say it."""

import json

import pytest

from slm_jax.core.errors import UserError
from slm_jax.text.whisper_tokens import WhisperTokens
from tests.whisper_folder import (
    END,
    LANGUAGES,
    NO_TIMES,
    SETTINGS,
    START,
    TRANSCRIBE,
    TRANSLATE,
    write_tokenizer,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(SETTINGS))
    return write_tokenizer(tmp_path)


def test_a_prefix_says_language_and_task(folder):
    tokens = WhisperTokens(folder)
    assert tokens.languages == LANGUAGES
    assert tokens.prefix("cs", "translate") == [START, LANGUAGES["cs"], TRANSLATE, NO_TIMES]
    assert tokens.prefix() == [START, LANGUAGES["en"], TRANSCRIBE, NO_TIMES]
    assert (tokens.end, tokens.any_language) == (END, "en")
    assert [tokens.language_of(number) for number in LANGUAGES.values()] == list(LANGUAGES)


def test_what_is_kept_back_is_what_the_file_says(folder):
    tokens = WhisperTokens(folder)
    assert tokens.never == (1, 2, 31, 32, 33, 34, 35, 36, 37)
    assert tokens.not_first == (0, END)


def test_words_come_without_specials(folder):
    assert WhisperTokens(folder).decode([START, 32, TRANSCRIBE, NO_TIMES, 3, 4, 3, END]) == "w3 w4 w3"
    assert WhisperTokens(folder).decode([]) == ""


def test_an_english_model_is_told_no_language(folder):
    (folder / "generation_config.json").write_text('{"is_multilingual": false, "begin_suppress_tokens": [0]}')
    tokens = WhisperTokens(folder)
    assert tokens.prefix() == tokens.prefix("en") == [START, NO_TIMES]
    assert (tokens.languages, tokens.never, tokens.not_first, tokens.any_language) == ({}, (), (0,), "en")
    for language, task in (("cs", "transcribe"), ("en", "translate")):
        with pytest.raises(UserError, match="English and nothing else"):
            tokens.prefix(language, task)


def test_a_model_without_english_has_another_language_to_begin_with(folder):
    (folder / "generation_config.json").write_text('{"lang_to_id": {"<|nl|>": 34}}')
    assert WhisperTokens(folder).any_language == "nl"


def test_mistakes_name_what_there_is(folder):
    tokens = WhisperTokens(folder)
    with pytest.raises(UserError, match="language is 'enn': must be one of cs, en, nl .did you mean 'en'"):
        tokens.prefix("enn")
    with pytest.raises(UserError, match="task is 'sing': must be one of transcribe, translate"):
        tokens.prefix("en", "sing")
    with pytest.raises(UserError, match="token 5 is no language"):
        tokens.language_of(5)


@pytest.mark.parametrize(
    "settings, message", [(None, "is 'absent from"), ("[1]", "must be a table"), ("{,", "is no JSON")]
)
def test_a_folder_without_good_settings_is_refused(folder, settings, message):
    path = folder / "generation_config.json"
    path.unlink() if settings is None else path.write_text(settings)
    with pytest.raises(UserError, match=message):
        WhisperTokens(folder)


def test_another_models_tokenizer_is_refused(folder):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"has no token '<\|startoftranscript\|>'"):
        WhisperTokens(folder)
