"""Tests over subjects: planted differences, the null, hand-worked p-values, and runs that are not paired."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError
from pulvinar.encoding.comparison import crossed_interval, over_subjects
from pulvinar.scores.encoding import correlations


def rows(scores, *, n_images=50, roi="V1"):
    return [
        {"subject": f"s{number}", "roi": roi, "hemisphere": "both", "r_nested": score, "null_mean": 0.0, "n_images": n_images}
        for number, score in enumerate(scores)
    ]


def test_a_difference_that_all_subjects_share():
    """By hand: 8 subjects, all better: p = 2 / 2^8; each score above its null: the same."""
    first = np.linspace(0.2, 0.4, 8)
    found = over_subjects({"a": rows(first), "b": rows(first + 0.05)})
    assert [row.run for row in found] == ["a", "b"]
    assert found[1].difference == pytest.approx(0.05)
    assert found[1].difference_p_value == found[1].p_value == 2 / 2**8
    assert found[0].difference is None


def test_p_values_are_even_under_the_null():
    rng = np.random.default_rng(0)
    p = [over_subjects({"a": rows(x), "b": rows(y)})[1].difference_p_value for x, y in rng.standard_normal((200, 2, 8))]
    assert 2 <= sum(value < 0.05 for value in p) <= 20
    assert abs(np.mean(p) - 0.5) < 0.08


def test_runs_that_are_not_paired_are_refused(capsys):
    with pytest.raises(InputError, match="subjects s0, s1, but a has s0, s1, s2"):
        over_subjects({"a": rows([1, 2, 3]), "b": rows([1, 2])})
    with pytest.raises(InputError, match=r"\[40\] test images"):
        over_subjects({"a": rows([1, 2]), "b": rows([1, 2], n_images=40)})
    with pytest.raises(InputError, match="share no ROI"):
        over_subjects({"a": rows([1, 2]), "b": rows([1, 2], roi="V2")})
    assert "2 subjects: no test over them" in capsys.readouterr().err


def predictions(rng, quality, truths):
    ids = np.array([f"i{row}" for row in range(60)])
    return {
        name: {"id": ids, "measured": truth, "predicted": quality * truth + rng.standard_normal(truth.shape)}
        for name, truth in truths.items()
    }


def test_interval_over_images_and_subjects():
    """Planted truth: one run predicts with r = .7, the other with .45; the difference of mean r is inside the interval."""
    rng = np.random.default_rng(1)
    truths = {f"s{number}": rng.standard_normal((60, 20)) for number in range(4)}
    ours, others = predictions(rng, 1.0, truths), predictions(rng, 0.5, truths)
    found = crossed_interval(ours, others)
    wanted = np.mean(
        [correlations(ours[s]["predicted"], truths[s]) - correlations(others[s]["predicted"], truths[s]) for s in truths]
    )
    assert found["difference"] == pytest.approx(wanted)
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["p_value_subjects"] == 2 / 2**4
    same = crossed_interval(ours, ours)
    assert (same["difference"], same["p_value_images"]) == (0, 1)
    other_images = {name: {**arrays, "id": np.array([f"j{row}" for row in range(60)])} for name, arrays in ours.items()}
    assert crossed_interval(ours, other_images) is None
