"""Oracle: torch's own product and its gradient."""

import pytest
import torch

from pulvinar.rsa.products import product


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_and_its_gradient_are_torch_s(dtype, transposed):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 5, generator=generator, dtype=dtype)
    matrix = matrix.T if transposed else matrix
    columns = torch.randn(matrix.shape[1], 3, generator=generator, dtype=dtype)
    weights = torch.randn(len(matrix), 3, generator=generator, dtype=dtype)
    found, expected = (columns.clone().requires_grad_() for _ in range(2))
    for one, way in ((found, product), (expected, torch.matmul)):
        (way(matrix, one).square() * weights).sum().backward()
    torch.testing.assert_close(product(matrix, columns), matrix @ columns)
    torch.testing.assert_close(found.grad, expected.grad)


def test_a_matrix_that_is_trained_gets_its_gradient():
    matrix, columns = torch.ones(2, 3, requires_grad=True), torch.arange(6.0).reshape(3, 2)
    product(matrix, columns).sum().backward()
    torch.testing.assert_close(matrix.grad, columns.sum(1).expand(2, 3))
