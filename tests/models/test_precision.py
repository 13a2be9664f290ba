"""Attention and depth-wise convolutions under autocast on the CPU, against float64 and against timm's attention."""

from typing import Any

import pytest
import timm
import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from vtzoo.models.precision import in_float32_on_cpu
from vtzoo.models.t2t import BlockAttention

MODELS = {
    "vtzoo_cvt_13": {"patch_size": 2},
    "vtzoo_t2t_vit_14": {"img_size": 32, "strides": (2, 2, 2)},
}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def explicit_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1) @ value


def explicit_convolution(grid: Tensor, weight: Tensor) -> Tensor:
    """A depth-wise convolution of stride 2, as a sum over patches."""
    patches = functional.unfold(grid, kernel_size=3, padding=1, stride=2).unflatten(1, (len(weight), 9))
    side = grid.shape[-1] // 2
    return (patches * weight.flatten(1)[..., None]).sum(dim=2).unflatten(2, (side, side))


def depthwise(grid: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(grid, weight, stride=2, padding=1, groups=len(weight))


@pytest.mark.parametrize(
    ("operation", "reference", "shapes"),
    [
        (functional.scaled_dot_product_attention, explicit_attention, [(2, 3, 65, 64)] * 3),
        (functional.scaled_dot_product_attention, explicit_attention, [(2, 3, 17, 64), *[(2, 3, 5, 64)] * 2]),
        (depthwise, explicit_convolution, [(2, 16, 8, 8), (16, 1, 3, 3)]),
    ],
)
def test_results_and_gradients_under_autocast_are_those_of_float64_to_1e_5(
    operation: Any, reference: Any, shapes: list[tuple[int, ...]]
) -> None:
    random = torch.Generator().manual_seed(1)
    tensors = [torch.randn(*shape, generator=random) for shape in shapes]
    near: list[Any] = [tensor.clone().requires_grad_() for tensor in tensors]
    exact: list[Any] = [tensor.double().requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        found = in_float32_on_cpu(operation, *near)
        assert operation(*near).dtype == torch.bfloat16  # without in_float32_on_cpu
    expected = reference(*exact)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    for result in (found, expected):
        (result * draw(*result.shape)).sum().backward()
    for one, other in zip(near, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_without_autocast_and_on_other_devices_the_operation_gets_the_tensors_themselves(device: str) -> None:
    tensor = torch.zeros(2, dtype=torch.bfloat16, device=device)
    with torch.autocast("cpu", torch.bfloat16, enabled=device != "cpu"):
        assert in_float32_on_cpu(lambda given: given, tensor) is tensor


class Precisions(TorchDispatchMode):
    """Records the precisions of the kernels that run, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.attention: set[torch.dtype] = set()
        self.depthwise: set[torch.dtype] = set()
        self.products: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if "scaled_dot_product" in name:
            self.attention.add(args[0].dtype)
        elif "convolution" in name and args[2 if "backward" in name else 1].shape[1] == 1:  # the weight
            self.depthwise.add(args[0].dtype)
        elif name.startswith(("mm", "addmm")):
            self.products.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MODELS)
def test_a_step_under_autocast_takes_products_in_bfloat16_and_attention_and_depthwise_convolutions_in_float32(
    name: str,
) -> None:
    model = timm.create_model(name, num_classes=10, **MODELS[name]).train()
    with Precisions() as seen:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(draw(2, 3, 32, 32))
        logits.float().square().sum().backward()
    assert seen.attention == {torch.float32}
    assert seen.depthwise == ({torch.float32} if "cvt" in name else set())
    assert torch.bfloat16 in seen.products


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "scale_norm": True, "norm_layer": nn.LayerNorm}])
def test_the_attention_of_t2t_blocks_has_the_parameters_the_answers_and_the_gradients_of_timms(changes: Any) -> None:
    torch.manual_seed(0)
    theirs, ours = (kind(64, num_heads=4, **changes).train() for kind in (Attention, BlockAttention))
    ours.load_state_dict(theirs.state_dict())
    gradients = []
    for layer in (theirs, ours):
        tokens = draw(2, 17, 64).requires_grad_()
        answers = layer(tokens)
        (answers * draw(2, 17, 64)).sum().backward()
        gradients.append([answers, tokens.grad, *(parameter.grad for parameter in layer.parameters())])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_the_attention_of_t2t_blocks_takes_a_mask_and_drops_weights_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, tokens = BlockAttention(64, num_heads=4, attn_drop=0.5), draw(1, 5, 64)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(layer(tokens, attn_mask=mask)[:, 0], layer(tokens[:, :1])[:, 0])
    torch.testing.assert_close(layer(tokens, is_causal=True), layer(tokens, attn_mask=mask))
