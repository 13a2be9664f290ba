"""Runs operations in float32 that are slow in bfloat16 on the CPU, under autocast.

On two cores with AVX-512 and torch 2.14, the backward pass of torch's fused attention takes up to 9 times as long in
bfloat16 as in float32, and that of a depth-wise convolution of stride 2 up to 27 times: `python
tests/bench/precision.py` measures whole steps. A GPU runs both fast in half precision. Without autocast, and in
exported graphs, nothing changes.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def in_float32_on_cpu(operation: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The operation's result; under autocast on the CPU it runs in float32, on float32 copies of the tensors."""
    if tensors[0].device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return operation(*tensors)
    with torch.autocast("cpu", enabled=False):
        return operation(*(tensor.float() for tensor in tensors))
