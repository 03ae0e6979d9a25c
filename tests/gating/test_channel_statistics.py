"""Gates with a planted behaviour, counted by hand."""

import numpy as np
import pytest
import torch

from pulvinar.core.errors import InputError
from pulvinar.gating.channel_statistics import channel_statistics, gates_of_images

FIRST = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1]]).float()
SECOND = torch.tensor([[0, 0], [0, 1], [0, 1]]).float()


def test_counts_of_a_hand_worked_case():
    found = channel_statistics([[FIRST[:2], SECOND[:2]], [FIRST[2:], SECOND[2:]]])
    first, second = found.gates
    assert (first.channels, first.always_on, first.always_off, first.dependent) == (4, 1, 1, 2)
    assert (second.channels, second.always_on, second.always_off, second.dependent) == (2, 0, 1, 1)
    assert first.density == pytest.approx(6 / 12)
    assert found.n_images == 3
    np.testing.assert_allclose(found.policies[0], [1, 0, 1 / 3, 2 / 3])
    assert found.share("always_off") == pytest.approx(2 / 6)
    assert sum(found.share(kind) for kind in ("always_on", "always_off", "dependent")) == pytest.approx(1)
    assert found.mean_open() == [2, 1]
    assert found.as_dict()["gates"][1]["dependent"] == 1


def test_an_empty_gate_keeps_one_channel_for_a_student():
    assert channel_statistics([[torch.zeros(5, 3)]]).mean_open() == [1]


def test_gates_are_asked_for_every_image_once():
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    seen = list(gates_of_images(lambda pixels: [pixels.mean((2, 3)) > 0], images, batch_size=3))
    assert [len(batch[0]) for batch in seen] == [3, 3, 1]


def test_no_gates_are_refused():
    with pytest.raises(InputError, match="no gates"):
        channel_statistics([[]])
