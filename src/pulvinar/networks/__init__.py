"""Library networks with named stages, the gated ResNet and its MACs, decoders, weights, preprocessing."""
