"""Splits. Oracles: set arithmetic on the ids and sources, and planted leaks that must be refused."""

import time

import numpy as np
import pytest

from pulvinar.core.errors import InputError, LeakError, NotFoundError
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.splits import Split, check_split, split_by_source, training_trials
from pulvinar.data.stimuli import Stimuli

NOISE = np.random.default_rng(0).integers(0, 255, (6, 4, 5, 3), dtype=np.uint8)


def stimuli(n: int = 6, **more) -> Stimuli:
    ids = [f"s{row}" for row in range(n)]
    return Stimuli(**{"ids": ids, "sources": ids} | more)


SPLIT = Split(train=("s0", "s1", "s2"), test=("s4", "s5"))


def test_a_clean_split_passes():
    check_split(SPLIT, stimuli(features={"clip": np.eye(6)}, read_image=NOISE.__getitem__))


@pytest.mark.parametrize(
    ("split", "more", "message"),
    [
        (Split(train=("s0", "s4"), test=("s4",)), {}, r"1 stimuli stand in training and test, among them \['s4'\]"),
        (SPLIT, {"sources": ["p", "q", "r", "s", "q", "t"]}, "share their source picture .* 's1' .* and 's4'"),
        (SPLIT, {"features": {"clip": np.eye(6)[[0, 1, 2, 3, 2, 5]]}}, "share their 'clip' feature .* 's2' .* 's4'"),
        (SPLIT, {"read_image": NOISE[[0, 1, 2, 3, 4, 0]].__getitem__}, "share their pixels .* 's0' .* 's5'"),
    ],
)
def test_a_planted_leak_is_refused(split, more, message):
    with pytest.raises(LeakError, match=message):
        check_split(split, stimuli(**more))


def test_keys_of_pixels_stand_for_pixels_that_are_then_not_read():
    def refuse(row):
        raise AssertionError("read")

    check_split(SPLIT, stimuli(read_image=refuse, pixel_keys=list("abcdef")))
    with pytest.raises(LeakError, match=r"share their pixels .* 's1' .* 's4'"):
        check_split(SPLIT, stimuli(read_image=refuse, pixel_keys=list("abcdbf")))
    with pytest.raises(InputError, match="pixel_keys: 2 rows for 6"):
        stimuli(pixel_keys=["a", "b"])


def test_the_same_pixels_in_another_shape_are_another_image():
    images = [*NOISE[:5], NOISE[0].reshape(5, 4, 3)]
    check_split(SPLIT, stimuli(read_image=images.__getitem__))


def test_unknown_ids_and_empty_sides_are_refused():
    with pytest.raises(NotFoundError, match=r"\['z'\]"):
        check_split(Split(train=("s0",), test=("z",)), stimuli())
    with pytest.raises(InputError, match="1 training and 0 test"):
        check_split(Split(train=("s0",), test=()), stimuli())


def test_split_by_source_keeps_sources_whole_and_is_reproducible():
    n = 300
    sources = [f"p{row // 3}" for row in range(n)]
    rows = stimuli(n, sources=sources)
    split = split_by_source(rows, test_share=0.2, seed=3)
    assert set(split.train) | set(split.test) == set(rows.ids)
    source_of = dict(zip(rows.ids, sources, strict=True))
    assert not {source_of[name] for name in split.train} & {source_of[name] for name in split.test}
    assert 60 <= len(split.test) <= 62  # the share is passed by one source at most
    assert split == split_by_source(rows, test_share=0.2, seed=3)
    assert split != split_by_source(rows, test_share=0.2, seed=4)
    check_split(split, rows)


def test_both_sides_get_something_even_with_two_sources():
    split = split_by_source(stimuli(2), test_share=0.99, seed=0)
    assert (len(split.train), len(split.test)) == (1, 1)
    with pytest.raises(InputError, match="one source picture"):
        split_by_source(stimuli(2, sources=["p", "p"]), test_share=0.5, seed=0)
    with pytest.raises(InputError, match=r"between 0 and 1, 1\.0 came"):
        split_by_source(stimuli(), test_share=1.0, seed=0)


def test_splitting_many_stimuli_takes_linear_time():
    started = time.perf_counter()
    split_by_source(stimuli(40_000), test_share=0.5, seed=0)
    assert time.perf_counter() - started < 5  # counting sources again for each one took 8e8 comparisons, about a minute


def test_training_trials_never_show_a_test_stimulus():
    ids = [f"s{row % 6}" for row in range(24)]
    responses = Responses(
        subject="sub-01",
        values=np.zeros((24, 1), np.float32),
        stimulus_ids=ids,
        sessions=np.arange(24) // 8,
        geometry=Geometry.from_points(np.zeros((1, 3))),
    )
    trials = training_trials(responses, SPLIT)
    assert {ids[trial] for trial in trials} == {"s0", "s1", "s2"}
    assert training_trials(responses, SPLIT, sessions=[1]).tolist() == [trial for trial in trials if 8 <= trial < 16]
    with pytest.raises(InputError, match="no trial shows a training stimulus"):
        training_trials(responses, SPLIT, sessions=[7])
