"""Convolutions whose weights are brought into the layout of the machine's kernels once, with sum and ReLU fused.

Eager torch brings weights into oneDNN's blocked layout on every call: at batch 1, where a layer of 512 channels takes half a
millisecond, that is as long again. Here it is done once per weight and size of input. Where oneDNN does not apply (another
device, another type than float32, a build without it) the plain convolution is used; results are equal up to summation order.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN's packed convolutions apply to this weight."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()


class PackedConvolution:
    """relu (or not) of a square convolution of channels-last maps, and of others added; either side may have no channel.

    weight: (output, input, kernel, kernel). Weights are packed at the first call for one image, and at the first for several.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int, relu: bool) -> None:
        self.weight, self.bias, self.stride, self.padding, self.relu = weight, bias, stride, padding, relu
        self._packed: dict[bool, Tensor] = {}

    @property
    def n_bytes(self) -> int:
        """Memory of the plain and the packed weights."""
        return self.weight.numel() * self.weight.element_size() * (1 + len(self._packed))

    def __call__(
        self, maps: Float[Tensor, "image input height width"], plus: Float[Tensor, "image output _ _"] | None = None
    ) -> Float[Tensor, "image output _ _"]:
        """The maps behind the convolution. plus: maps of the same shape, added in front of the ReLU."""
        outputs, inputs = self.weight.shape[:2]
        if not outputs or not inputs or not len(maps):
            return self._without_channels(maps, plus)
        if not can_pack(self.weight):
            made = functional.conv2d(maps, self.weight, self.bias, self.stride, self.padding)
            made = made if plus is None else made.add_(plus)
            return made.relu_() if self.relu else made
        padding, stride = [self.padding] * 2, [self.stride] * 2
        alone = len(maps) == 1
        if alone not in self._packed:
            self._packed[alone] = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, padding, stride, [1, 1], 1, list(maps.shape)
            )
        given = (self._packed[alone], self.bias, padding, stride, [1, 1], 1)
        if plus is None:
            after = "relu" if self.relu else "none"
            return torch.ops.mkldnn._convolution_pointwise(maps, *given, after, [], "")
        last = "relu" if self.relu else None
        return torch.ops.mkldnn._convolution_pointwise.binary(maps, plus, *given, "add", 1.0, last, [], None)

    def _without_channels(self, maps: Tensor, plus: Tensor | None) -> Tensor:
        sides = [(side + 2 * self.padding - self.weight.shape[-1]) // self.stride + 1 for side in maps.shape[2:]]
        value = maps.new_zeros(self.weight.shape[0]) if self.bias is None else self.bias
        if plus is not None:
            made = plus + value[:, None, None]
            return made.relu_() if self.relu else made
        return (value.relu() if self.relu else value)[:, None, None].expand(len(maps), -1, *sides)
