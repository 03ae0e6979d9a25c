"""Sessions and runs. Oracle: the numbers that the names say."""

import pytest

from pulvinar.core.errors import InputError
from pulvinar.data.sessions import session_numbers


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["ses-10", "ses-02", "ses-10"], [10, 2, 10]),
        (["1.0", "10", "010", "2.00", "3,0"], [1, 10, 10, 2, 3]),
        (["10", "ses-9", "run-08"], [10, 9, 8]),
        (["day1", "day12", "Day2"], [1, 12, 2]),
        (["imagenet03", "imagenet1"], [3, 1]),
        (["-1", "0"], [-1, 0]),
        (["pre", "post", "pre"], [0, 1, 0]),
        (["pre1", "post1"], [0, 1]),
        (["2024-01-05", "2024-01-04"], [0, 1]),
    ],
)
def test_names_mean_numbers(labels, numbers):
    assert session_numbers(labels, "session", "t.csv").tolist() == numbers


def test_a_fraction_is_refused():
    with pytest.raises(InputError, match=r"t\.csv: session '1\.5' is not a whole number"):
        session_numbers(["1", "1.5"], "session", "t.csv")
    with pytest.raises(InputError, match=r"run '99999999999999999999' is too large a number"):
        session_numbers(["99999999999999999999"], "run", "t.csv")
