"""How many threads torch has. One for small steps: waking a second one for each small product takes longer than the product."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

WORTH_THREADS = 60_000_000  # multiply-adds of a product: about a millisecond and a half on one core


@contextmanager
def threads(number: int) -> Iterator[None]:
    """A block with so many threads of torch; those of before are put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_for(multiply_adds: int) -> Iterator[None]:
    """As many threads as torch has where the largest matrix product inside is worth it, one where it is smaller.

    The sizes alone decide, so a resumed run computes with the same threads. (`pulvinar demo` on two idle cores: 288 s with
    two threads everywhere; docs/log.md.)
    """
    with threads(1) if multiply_adds < WORTH_THREADS else nullcontext():
        yield
