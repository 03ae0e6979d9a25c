"""Oracle: the whole network. A small one that is traced, cut, and trained behind the cut; adapters that become weights."""

import pytest
import torch
from torch import nn

from pulvinar.core.errors import InputError
from pulvinar.networks.low_rank import add_adapters, merge
from pulvinar.networks.network_cut import named_parameters_of, require_same, rest_after


class Small(nn.Module):
    """Three convolutions; `around`: the first one's maps are added to the last one's."""

    def __init__(self, *, around: bool = False) -> None:
        super().__init__()
        self.around = around
        self.first, self.second, self.third = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        first = torch.relu(self.first(images))
        maps = self.third(torch.relu(self.second(first)))
        return self.head((maps + first if self.around else maps).mean((2, 3)))


def test_the_rest_gives_what_the_whole_gives_and_shares_its_weights():
    network, images = Small().eval(), torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    rest = rest_after(network, "second")
    kept = network.second(torch.relu(network.first(images))).detach()
    torch.testing.assert_close(rest(kept), network(images))
    require_same(network, rest, images, kept)
    trained = named_parameters_of(rest, network)
    assert sorted(trained) == ["head.bias", "head.weight", "third.bias", "third.weight"]
    with torch.no_grad():
        trained["head.bias"].add_(1)
    torch.testing.assert_close(rest(kept), network(images))


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(InputError, match="goes around 'second'"):
        rest_after(Small(around=True), "second")
    with pytest.raises(InputError, match="runs 0 times"):
        rest_after(Small(), "nothing")
    network, images = Small().eval(), torch.randn(2, 3, 10, 10)
    rest = rest_after(network, "second")
    with pytest.raises(InputError, match="does not give"):
        require_same(network, rest, images, torch.zeros(2, 8, 10, 10))


def test_adapters_change_nothing_at_first_and_become_weights():
    network, images = Small().eval(), torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    before, names = network(images).detach(), [name for name, _ in network.named_parameters()]
    adapted = add_adapters(network, rank=2, seed=0)
    torch.testing.assert_close(network(images), before)
    few = [value for value in network.parameters() if value.requires_grad]
    assert sum(value.numel() for value in few) < sum(value.numel() for value in network.parameters()) / 2
    with torch.no_grad():
        for value in few:
            value.add_(0.1)
    changed = network(images).detach()
    merged = merge(adapted)
    assert [name for name, _ in merged.named_parameters()] == names
    assert (changed - before).abs().max() > 0.01
    torch.testing.assert_close(merged(images), changed, rtol=1e-4, atol=1e-5)
