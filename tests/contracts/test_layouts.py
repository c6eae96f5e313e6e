"""Every scheme under every layout: one step of training, a few of generation, each as the model as a whole has it."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY
from slm_jax.generation.by_layout import told_row
from slm_jax.generation.by_scheme import filled_in
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.layouts.beside import FixedPadding, PaddingAfter, TimeAligned
from slm_jax.layouts.interleaved import ByRatio, Interleaved, WordSpans
from slm_jax.layouts.layout import MARKS, merged, parted, weights
from slm_jax.layouts.said import said_of
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import TemporalDepth
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from tests.contracts.checks import random_params

TEXT, CODES, FRAMES, STEPS, ROWS = 11, 7, 5, 48, 4
BODY = llama("7b", vocabulary=1, layers=1, width=16, heads=2, kv_heads=2, hidden=24, tied_head=True)
DEPTH = DepthConfig(width=16, layers=1, heads=2, hidden=16)
LAYOUTS = {
    "after": PaddingAfter(),
    "fixed": FixedPadding(pads=1),
    "aligned": TimeAligned(ahead=1),
    "interleaved": ByRatio(text=2, frames=2),
}
SCHEMES = {
    "coarse first": lambda books: CoarseFirst(coarse=1),
    "interleaved": lambda books: Flattened(),
    "delay": lambda books: Delay(delays=(0, *[1] * (books - 1))),
    "temporal and depth": lambda books: TemporalDepth(),
}
SAID = said_of([np.array([3, 5]), np.array([1])], np.array([[1, 2], [3, 5]]))
GREEDY = SamplingConfig(max_new=1, temperature=0.0)


@cache
def model_of(books, ordered):
    """A model and its weights, text in stream 0."""
    streams = (TEXT + MARKS, *[CODES] * books)
    flat = MultiStreamConfig(streams=streams, body=BODY, blanks=True)
    model = (TemporalDepthConfig(temporal=flat.replace(heads=1), depth=DEPTH) if ordered else flat).make()
    return model, random_params(model, jax.random.key(books), jnp.zeros((1, 2, 1 + books), jnp.int32))


@partial(jax.jit, static_argnums=0)
def trained(objective, params, batch):
    """The loss before and after a step against its gradient."""

    def loss(params):
        terms = objective({"params": params}, batch, None).terms.values()
        return sum(term.weight * term.total / jnp.maximum(term.count, 1.0) for term in terms)

    before, gradient = jax.value_and_grad(loss)(params)
    return before, loss(jax.tree.map(lambda x, g: x - 1e-3 * g, params, gradient)), optax.global_norm(gradient)


@partial(jax.jit, static_argnums=0)
def scores(model, params, ids):
    """Logits; 0 where a stream has no such id."""
    return jnp.nan_to_num(model.apply({"params": params}, ids), neginf=0.0)


@partial(jax.jit, static_argnums=0)
def likeliest(model, params, ids):
    return model.apply({"params": params}, ids).argmax(-1)


def cases(books):
    quick = {("aligned", "delay"), ("interleaved", "temporal and depth")}
    quick |= {("after", "interleaved"), ("fixed", "coarse first")} if books == 1 else set()
    return [
        pytest.param(layout, scheme, books, marks=[] if (layout, scheme) in quick else pytest.mark.slow(seconds=8))
        for layout in LAYOUTS
        for scheme in SCHEMES
    ]


@pytest.mark.parametrize(("layout", "scheme", "books"), [*cases(1), *cases(8)])
def test_every_scheme_learns_under_every_layout(layout, scheme, books):
    order, codes = SCHEMES[scheme](books), np.random.default_rng(0).integers(CODES, size=(FRAMES, books))
    slots = LAYOUTS[layout].slots(SAID, FRAMES, np.random.default_rng(0))
    ids, valid = order.arrange_row(codes)
    row = merged(slots, TEXT, np.where(valid, ids, EMPTY), order.begins(FRAMES, books))
    ids = np.full((1, STEPS + 1, 1 + books), EMPTY)
    ids[0, 1 : 1 + len(row)] = row
    mask = np.arange(STEPS + 1)[None] <= len(row)
    batch = {"ids": ids, "target_weight": weights(ids[0], TEXT, 0.5)[None], "mask": mask}
    names = ("text", *(f"codes_{book}" for book in range(books)))
    model, params = model_of(books, order.ordered)
    objective = NextStreamsConfig(names=names, weights=(1.0,) * len(names)).make(model)
    before, after, norm = trained(objective, params, batch)
    assert np.isfinite([before, norm]).all() and after < before


@pytest.mark.parametrize(("layout", "scheme", "books"), [*cases(1), *cases(8)])
def test_nothing_leaks_from_what_comes_later(layout, scheme, books):
    """Another text or code in a step moves no logit of earlier steps, nor of entries that the step has before it."""
    order = SCHEMES[scheme](books)
    model, params = model_of(books, order.ordered)
    codes = np.random.default_rng(0).integers(CODES, size=(FRAMES, books))
    row = told_row(LAYOUTS[layout], order, SAID, codes, FRAMES, TEXT)
    sizes = np.array(model.config.streams)
    ids = np.full((ROWS, STEPS + 1, 1 + books), EMPTY)
    ids[:, 1 : 1 + len(row)] = row
    plain = ids.copy()
    told = [(step, np.flatnonzero(entries >= 0)) for step, entries in enumerate(row) if (entries >= 0).any()]
    told = [told[place] for place in np.linspace(0, len(told) - 1, ROWS).astype(int)]  # from the first to the last
    for number, (step, entries) in enumerate(told):
        ids[number, 1 + step, entries[-1:]] = (ids[number, 1 + step, entries[-1:]] + 1) % sizes[entries[-1:]]
    logits, own = np.asarray(scores(model, params, ids)), np.asarray(scores(model, params, plain))
    for number, (step, entries) in enumerate(told):
        np.testing.assert_allclose(logits[number, :step], own[number, :step], atol=1e-5)
        before = slice(0, entries[-1] + 1)
        np.testing.assert_allclose(logits[number, step, before], own[number, step, before], atol=1e-5)
        assert np.abs(logits[number, step + 1] - own[number, step + 1]).max() > 1e-4


@pytest.mark.parametrize(("layout", "scheme", "books"), [*cases(1), *cases(8)])
def test_what_is_drawn_is_what_the_model_finds_likeliest_and_what_is_known_stays(layout, scheme, books):
    """Without text and codes, with both up to a frame, with all of the text (which alone interleaved layouts take)."""
    order, place = SCHEMES[scheme](books), LAYOUTS[layout]
    codes = np.random.default_rng(1).integers(CODES, size=(2, books))
    model, params = model_of(books, order.ordered)
    asks = {"spoken": (codes[:0], None)} | (
        {} if isinstance(place, Interleaved) else {"both": (codes, len(codes)), "nothing": (codes[:0], 0)}
    )
    rows = {name: told_row(place, order, SAID, known, FRAMES, TEXT, written=n) for name, (known, n) in asks.items()}
    told = np.stack([np.pad(row, ((0, STEPS - len(row)), (0, 0)), constant_values=EMPTY) for row in rows.values()])
    made = filled_in(model, params, told, jax.random.key(0), GREEDY)
    read = np.pad(made, ((0, 0), (1, 0), (0, 0)), constant_values=EMPTY)
    wanted = np.asarray(likeliest(model, params, read))[:, :-1]
    np.testing.assert_array_equal(made, np.where(told == -1, wanted, told))
    for row, (name, (known, _)) in zip(made, asks.items(), strict=True):
        text, steps = parted(row[: len(rows[name])], TEXT)
        restored = order.restore_row(steps)
        assert restored.shape == (FRAMES, books) and (restored >= 0).all()
        np.testing.assert_array_equal(restored[: len(known)], known)
        if name == "spoken":
            np.testing.assert_array_equal(text, SAID.ids)


def test_what_cannot_be_continued_is_refused_by_name():
    codes = np.zeros((2, 1), int)
    with pytest.raises(UserError, match="'ByRatio': takes turns"):
        told_row(ByRatio(), Delay(delays=(0,)), SAID, codes, FRAMES, TEXT, written=2)
    with pytest.raises(UserError, match="'WordSpans': a row to be continued"):
        told_row(WordSpans(longest_span=1), Delay(delays=(0,)), SAID, codes, FRAMES, TEXT)
    with pytest.raises(UserError, match="frames is 1"):
        told_row(PaddingAfter(), Delay(delays=(0,)), SAID, codes, 1, TEXT)
