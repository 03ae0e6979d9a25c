"""One thread for small steps: waking a second one for each small product takes longer than the product."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_THREADS = 60_000_000  # multiply-adds of a product: about a millisecond and a half on one core


@contextmanager
def threads_for(multiply_adds: int) -> Iterator[None]:
    """As many threads as torch has where the largest matrix product inside is worth it, one where it is smaller.

    The sizes alone decide, so a resumed run computes with the same threads. (`pulvinar demo` on two idle cores: 288 s with
    two threads everywhere; docs/log.md.)
    """
    before = torch.get_num_threads()
    small = before > 1 and multiply_adds < WORTH_THREADS
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)
