"""Rows of tags as Qwen-Audio's evaluation writes them, and what is refused."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Text
from slm_jax.text.task_tags import QWEN_AUDIO_TAGS, TaskTags

PUBLISHED = {
    "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>": TaskTags(
        task="transcribe", style="wo_itn"
    ),
    "<|startoftranscript|><|de|><|translate|><|en|><|notimestamps|><|itn|>": TaskTags(
        task="translate", heard="de", style="itn"
    ),
    "<|startoftranscript|><|en|><|transcribe|><|en|><|timestamps|><|0.00|>": TaskTags(
        task="transcribe", times=True, style="0.00"
    ),
    "<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_clotho|>": TaskTags(
        task="caption", heard="unknown", style="caption_clotho"
    ),
    "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|emotion_recognition|>": TaskTags(
        task="keyword", style="emotion_recognition"
    ),
    "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|vocal_classification|>": TaskTags(
        task="keyword", style="vocal_classification"
    ),
}
QUESTION = TaskTags(task="question", written=None, times=None)


@pytest.mark.parametrize("marks", PUBLISHED)
def test_a_row_is_written_as_published(marks):
    assert PUBLISHED[marks].marks == marks
    assert PUBLISHED[marks].parts() == (Text(marks),) and PUBLISHED[marks].spelt == (marks,)


def test_a_question_stands_between_tags():
    wanted = ("<|startofanalysis|><|en|><|question|>", "Is it <|en|>?", "<|answer|>")
    assert QUESTION.parts("Is it <|en|>?") == tuple(map(Text, wanted))
    assert QUESTION.spelt == (wanted[0], wanted[2])


def test_every_tag_of_a_row_is_a_token_once():
    specials = QWEN_AUDIO_TAGS.specials
    assert len(set(specials)) == len(specials)
    for row in PUBLISHED.values():
        tags = row.marks.replace("><", "> <").split()
        assert set(tags) - {"<|0.00|>"} <= set(specials)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "transcript"}, r"task is 'transcript'.*did you mean 'transcribe'"),
        ({"heard": "eng"}, r"heard is 'eng'.*did you mean 'en'"),
        ({"written": "xx"}, "written is 'xx'"),
        ({"style": "emotion"}, r"style is 'emotion'.*did you mean"),
        ({"style": "0.00"}, "style is '0.00'"),
        ({"times": True, "style": "31.00"}, "style is '31.00'"),
        ({"task": "question"}, "a question has no tags behind it"),
    ],
)
def test_unknown_tags_are_refused(changes, told):
    with pytest.raises(UserError, match=told):
        TaskTags(**{"task": "transcribe", **changes})


def test_words_go_with_questions_only():
    with pytest.raises(UserError, match="words go with the task"):
        QUESTION.parts()
    with pytest.raises(UserError, match="words go with the task"):
        TaskTags(task="transcribe").parts("Who?")
