import numpy as np

from slm_jax.data.order import EpochOrder, Key, Mixture, example_rng, one_order


def test_an_epoch_is_a_permutation_that_can_be_asked_for_again():
    order = EpochOrder(100, (5, 0))
    epochs = [order(epoch).copy() for epoch in range(8)]
    for epoch, places in enumerate(epochs):
        np.testing.assert_array_equal(np.sort(places), np.arange(100))
        np.testing.assert_array_equal(EpochOrder(100, (5, 0))(epoch), places)
        np.testing.assert_array_equal(order(epoch), places)  # also after it was dropped from memory
    assert len({places.tobytes() for places in epochs}) == 8
    assert (EpochOrder(100, (6, 0))(0) != epochs[0]).any()
    assert (EpochOrder(100, (5, 1))(0) != epochs[0]).any()


def test_first_places_are_unbiased():
    first = [EpochOrder(10, (seed,))(0)[0] for seed in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert abs(counts - 200).max() < 60  # more than four standard deviations of a binomial


def test_the_order_is_pinned():
    """A change here breaks the resumption of every run made before it."""
    assert EpochOrder(8, (0, 0))(0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


def test_keys_of_members_count_epochs():
    keys = one_order(np.asarray([4, 7, 9]), 2, (1,)).repeat()
    found = [keys[place] for place in range(6)]
    assert [key.epoch for key in found] == [0, 0, 0, 1, 1, 1]
    assert {key.position for key in found[:3]} == {key.position for key in found[3:]} == {4, 7, 9}
    assert {key.source for key in found} == {2}


def test_random_numbers_differ_by_every_part_of_the_key():
    base = example_rng(0, Key(1, 2, 3)).random()
    assert example_rng(0, Key(1, 2, 3)).random() == base
    others = [(1, Key(1, 2, 3)), (0, Key(0, 2, 3)), (0, Key(1, 3, 3)), (0, Key(1, 2, 4))]
    assert all(example_rng(seed, key).random() != base for seed, key in others)


def test_examples_are_numbered_end_to_end():
    mixture = Mixture([[{"a": 1}] * 5, [{"a": 1}] * 3])
    assert mixture.sizes == [5, 3]
    assert mixture.example(Key(0, 9, 4)) == 4
    assert mixture.example(Key(1, 0, 2)) == 7
