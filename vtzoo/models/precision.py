"""Operations that bfloat16 slows down on the CPU: under autocast, they run there in float32.

On two cores with AVX-512 and torch 2.14, the backward pass of torch's fused attention takes up to 9 times as long in
bfloat16 as in float32, that of a depth-wise convolution of stride 2 up to 27 times: `python tests/bench/precision.py`
measures whole steps. A GPU is fast at both in half precision. Without autocast nothing changes, nor in exported graphs.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def in_float32_on_cpu(operation: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The operation of the tensors; under autocast on the CPU, of float32 copies of them, in float32."""
    if tensors[0].device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return operation(*tensors)
    with torch.autocast("cpu", enabled=False):
        return operation(*(tensor.float() for tensor in tensors))
