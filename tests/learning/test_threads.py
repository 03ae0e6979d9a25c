"""Oracle: torch's own count of threads."""

import pytest
import torch

from pulvinar.learning.threads import WORTH_THREADS, threads_for


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_small_steps_have_one_thread_large_ones_all(three_threads):
    with threads_for(WORTH_THREADS):
        assert torch.get_num_threads() == 3
        with threads_for(WORTH_THREADS - 1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    with pytest.raises(KeyboardInterrupt), threads_for(0):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3
