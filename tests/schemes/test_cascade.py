"""Rows of a cascade against loops, there and back for ragged clips, and what is refused in one line."""

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.token_spec import Codebook, TokenSpec, single
from slm_jax.schemes.cascade import Cascade, Pass, audiolm

UNITS, N, BOOKS, COARSE, CHUNK = 9, 5, 6, 2, 4
SEMANTIC = single("units", UNITS, 640, 16_000, columns=("units",), runs=("runs",), durations="durations")
NAMES = tuple(f"codes_{book}" for book in range(BOOKS))
BOOKS_OF = tuple(Codebook(name=name, size=N) for name in NAMES)
ACOUSTIC = TokenSpec(codebooks=BOOKS_OF, hop=320, rate_hz=16_000, columns=NAMES)
CASCADE = audiolm(SEMANTIC, ACOUSTIC, COARSE, chunk_s=CHUNK / 50)
START, END, FIRST = 1, 2, 3
"""`<s>`, `</s>` and the first id that is none of these."""
CLIPS = [(7, 10), (1, 1), (3, 4), (2, 0), (0, 9)]
"""Units and frames of codes."""


def clip(units: int, frames: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(units)
    runs = np.cumsum(rng.integers(1, UNITS, units)) % UNITS
    return {"units": runs} | {name: rng.integers(0, N, frames) for name in NAMES}


def flat(books: dict, names: tuple[str, ...], first: int) -> list[int]:
    frames = len(books[names[0]])
    return [first + q * N + int(books[name][t]) for t in range(frames) for q, name in enumerate(names)]


def oracle(number: int, books: dict) -> tuple[list[int], list[bool]]:
    closed = [FIRST + int(unit) for unit in books["units"]] + [END]
    if number == 0:
        read, written = [], closed
    elif number == 1:
        read, written = closed, [*flat(books, NAMES[:COARSE], FIRST + UNITS), END]
    else:
        read, written = flat(books, NAMES[:COARSE], FIRST), flat(books, NAMES[COARSE:], FIRST + COARSE * N)
    return [START, *read, *written], [False] * (1 + len(read)) + [True] * len(written)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("size", CLIPS)
def test_rows_equal_loops_and_come_back(number, size):
    books = clip(*size)
    ids, written = CASCADE.row(number, books)
    assert (ids.tolist(), written.tolist()) == oracle(number, books)
    assert ids.max() < CASCADE.vocabulary(number).size
    one = CASCADE.passes[number]
    back = CASCADE.books_of(number, ids)
    assert set(back) == {*one.reads, *one.writes}
    for name, values in back.items():
        np.testing.assert_array_equal(values, books[name])


@pytest.mark.parametrize("size", CLIPS)
def test_chunks_are_rows_without_overlap_that_join_again(size):
    books = clip(*size)
    parts = CASCADE.chunks(2, books)
    assert [len(part[NAMES[0]]) for part in parts] == [min(CHUNK, size[1] - at) for at in range(0, size[1], CHUNK)]
    back = [CASCADE.books_of(2, CASCADE.row(2, part)[0]) for part in parts]
    for name in NAMES if parts else ():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in back]), books[name])
    assert CASCADE.chunks(1, books) == [{name: books[name] for name in ("units", *NAMES[:COARSE])}]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_legal_is_what_rows_hold(number):
    ids, written = CASCADE.row(number, clip(7, 10))
    legal, with_end = CASCADE.legal(number), CASCADE.legal(number, ends=True)
    assert legal.shape == ((1, COARSE, BOOKS - COARSE)[number], CASCADE.vocabulary(number).size)
    targets = ids[written]
    if number == 1:
        targets, end = targets[:-1], targets[-1]
        assert with_end[len(targets) % COARSE, end] and with_end[1:, end].sum() == 0
        with_end[:, end] = False
        np.testing.assert_array_equal(with_end, legal)
    assert legal[np.arange(len(targets)) % len(legal), targets].all()
    assert legal.sum(1).tolist() == ([UNITS + 1] if number == 0 else [N] * len(legal))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_prompt_is_a_row_up_to_where_the_model_goes_on(number):
    books = clip(7, 10)
    begun = {name: values[:3] if name in CASCADE.passes[number].writes else values for name, values in books.items()}
    row, _ = CASCADE.row(number, books)
    prompt = CASCADE.prompt(number, begun)
    np.testing.assert_array_equal(prompt, row[: len(prompt)])
    assert len(prompt) == (4, 9 + 3 * COARSE, 1 + 10 * COARSE + 3 * (BOOKS - COARSE))[number]
    read_only = {name: books[name] for name in CASCADE.passes[number].reads}
    bare = CASCADE.prompt(number, read_only)
    np.testing.assert_array_equal(bare, row[: len(bare)])


def test_the_published_form():
    books = tuple(Codebook(name=f"q{i}", size=1024) for i in range(12))
    acoustic = ACOUSTIC.replace(codebooks=books, columns=tuple(book.name for book in books))
    cascade = audiolm(SEMANTIC.replace(codebooks=(Codebook(name="units", size=1024),)), acoustic)
    assert [(len(one.reads), len(one.writes), one.chunk) for one in cascade.passes] == [
        (0, 1, None),
        (1, 4, None),
        (4, 8, 150),
    ]
    assert cascade.frames_per_unit == 2 and cascade.legal(2).shape == (8, 3 + 12 * 1024)
    assert len(audiolm(SEMANTIC, ACOUSTIC, coarse=BOOKS).passes) == 2
    assert from_json(cascade.to_json()) == cascade


def test_units_and_codes_of_a_clip_must_last_as_long():
    assert CASCADE.common_frames(100, 201) == 200
    assert CASCADE.common_frames(99, 201) == 198
    with pytest.raises(UserError, match="units of a clip is 200: the 201 frames of codes are 2 to a unit: about 100"):
        CASCADE.common_frames(200, 201)


def passes(*each: tuple) -> Cascade:
    made = tuple(Pass(reads=reads, writes=writes, chunk=chunk) for reads, writes, chunk in each)
    return Cascade(semantic=SEMANTIC, acoustic=ACOUSTIC, passes=made)


FAST, SLOW = SEMANTIC.replace(hop=320), ACOUSTIC.replace(rate_hz=24_000)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: audiolm(FAST, SLOW), "semantic units a second is '50': the codes' 75 must be a whole multiple"),
        (lambda: audiolm(FAST, ACOUSTIC.replace(hop=640)), "semantic units a second is '50': the codes' 25"),
        (lambda: audiolm(SEMANTIC, ACOUSTIC, coarse=7), "coarse is 7: must lie within the 6 books"),
        (lambda: passes((("units",), NAMES[:2], None)), r"passes\[0\].reads is 'units': nobody before it writes"),
        (
            lambda: passes(((), ("units",), None), (("units",), NAMES[:2], None), (NAMES[:3], NAMES[3:], 4)),
            r"passes\[2\].reads is 'codes_2': nobody before it writes that book \(units, codes_0, codes_1\)",
        ),
        (lambda: passes(((), NAMES[:2], None), ((), NAMES[1:], None)), "is 'codes_1': a pass before it writes that"),
        (lambda: passes(((), ("words",), None)), "is 'words': the tokenizers have units, codes_0"),
        (lambda: passes(((), ("units", "codes_0"), None)), "one pass for each"),
        (lambda: passes(((), ("units",), None), (("units",), NAMES, 4)), "chunk is 4: runs of units have no frames"),
        (lambda: CASCADE.prompt(2, {"codes_0": np.zeros(3, int)}), "is 'codes_1': nobody wrote it"),
        (lambda: CASCADE.row(1, {"units": np.array([UNITS])}), "ids of range 'units' is"),
        (lambda: CASCADE.row(2, clip(1, 4) | {"codes_0": np.zeros(3, int)}), r"frames of codes_0, codes_1 is \[3, 4\]"),
        (lambda: CASCADE.books_of(1, np.array([START, END, FIRST + UNITS])), "1 are left behind"),
        (lambda: CASCADE.books_of(1, np.array([START, END, FIRST + UNITS, END])), "1 are left behind"),
        (lambda: CASCADE.books_of(0, np.array([START, START])), r"ids of units is \[1\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(refused, message):
    with pytest.raises(UserError, match=message) as caught:
        refused()
    assert len(str(caught.value).splitlines()) == 1
