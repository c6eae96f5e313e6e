"""Many wordings of what is asked of a recording, by task: instruction tuning draws one of them for each example.

`AskedTaskConfig(asks=wordings("transcription"))`, or for another language
`AskedTaskConfig(asks=wordings("translation", language="German"), answers=("{german}",))`.
"""

from slm_jax.core.errors import UserError, nearest

POOL: dict[str, tuple[str, ...]] = {
    "transcription": (
        "Write down what is said.",
        "Transcribe the recording.",
        "What are the words of this recording?",
        "Put the speech into writing, word by word.",
        "Listen and note every word.",
        "Type what the speaker says.",
        "Give me a transcript.",
        "Which words do you hear?",
        "Turn this speech into text.",
        "I need the wording of this clip.",
    ),
    "translation": (
        "Translate what is said into {language}.",
        "Say in {language} what you hear.",
        "How would one say this in {language}?",
        "Write a {language} version of the speech.",
        "Give me the {language} translation of the recording.",
        "Put the words of the speaker into {language}.",
        "What does this mean in {language}?",
        "Render the clip in {language}.",
    ),
    "emotion": (
        "How does the speaker feel?",
        "Which emotion is heard in the voice?",
        "Name the mood of the speaker.",
        "What feeling does the voice express?",
        "Judge the emotion of this clip.",
        "Describe in one word how the speaker feels.",
        "Which mood is the speaker in?",
        "Listen to the tone and name the emotion.",
    ),
    "energy": (
        "Is the speech soft, normal or loud?",
        "How loud is it: soft, normal or loud?",
        "Does the speaker talk in a soft, a normal or a loud voice?",
        "Name the loudness: loud, normal or soft.",
        "Choose one: soft, normal, loud.",
        "Would you call this speech loud, normal or soft?",
        "Judge how much voice is used: soft, normal or loud.",
        "Tell me whether it is soft, normal or loud.",
    ),
    "rate": (
        "Is it spoken in a slow, a normal or a fast way?",
        "How fast does the speaker talk: slow, normal or fast?",
        "Name the speaking rate: fast, normal or slow.",
        "Choose one: slow, normal, fast.",
        "Would you call this speech slow, normal or fast?",
        "Judge the tempo as slow, normal or fast.",
        "Tell me whether the speaker is slow, normal or fast.",
        "Which rate of speech is it: fast, slow or normal?",
    ),
    "voice": (
        "Is the voice deep or high?",
        "Which kind of voice speaks, a deep one or a high one?",
        "Describe the voice in one word: high or deep.",
        "Does a high or a deep voice speak?",
        "Choose one for this voice: deep, high.",
        "Would you call the speaker's voice deep or high?",
        "Tell me whether the voice is high or deep.",
        "How does the voice sound, deep or high?",
    ),
    "speaker": (
        "Who is speaking?",
        "Whose voice do you hear?",
        "Name the person who talks.",
        "Which speaker is this?",
        "Tell me who says this.",
        "By whom is it said?",
        "Do you know this voice? Who is it?",
        "Identify the speaker.",
    ),
    "question": (
        "Answer the question.",
        "What is the answer to what is asked?",
        "Reply to the speaker.",
        "Please answer what you hear.",
        "Somebody asks something: answer it.",
        "Listen to the question and reply.",
        "Give the speaker an answer.",
        "What would you say to that?",
    ),
    "last_word": (
        "What is the last word?",
        "Repeat the last word only.",
        "With which word does it end?",
        "Name the word that is said last.",
        "Which word comes at the end?",
        "Say the final word of the recording.",
        "How does the sentence end? Give one word.",
        "After all other words comes which one?",
    ),
    "word_count": (
        "How many words are said?",
        "Count the words of the recording.",
        "Of how many words is the sentence made?",
        "Tell me the number of words.",
        "What is the number of words that you hear?",
        "Listen and count the words.",
        "How long is the sentence in words?",
        "Give me the count of words.",
    ),
    "language": (
        "Which language is spoken?",
        "Name the language of the recording.",
        "In which language does the speaker talk?",
        "What language do you hear?",
        "Identify the language.",
        "Tell me the language of this speech.",
    ),
}
"""Task -> wordings; `{language}` and the like are to be filled in."""


def wordings(task: str, **fields: str) -> tuple[str, ...]:
    """The wordings of a task, filled in; raises `UserError` for an unknown task and for a field that is missing."""
    if task not in POOL:
        raise UserError(f"task is {task!r}: one of {', '.join(POOL)}{nearest(task, POOL)}")
    try:
        return tuple(form.format(**fields) for form in POOL[task])
    except KeyError as missing:
        raise UserError(f"wordings of {task!r} need a field {missing}") from None
