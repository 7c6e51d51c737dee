"""The optimiser of every update, and the clipping of its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """Fused Adam whose step on a CPU does not look for accelerators first.

    torch asks for one at every step, to check CUDA graph capture; after Lightning is imported that question goes to the
    NVIDIA library (`PYTORCH_NVML_BASED_CUDA_CHECK`) and takes three times as long as a small network's step.
    """

    def _accelerator_graph_capture_health_check(self) -> None:
        if self.param_groups[0]["params"][0].device.type != "cpu":
            super()._accelerator_graph_capture_health_check()


def clip_(gradients: Sequence[Tensor | None], max_norm: float) -> Tensor:
    """Scales the gradients down to a global norm, in place, as `torch.nn.utils.clip_grad_norm_`; returns their norm.

    On a CPU, where looking at a number costs nothing, gradients within the norm are left alone.
    """
    found = [gradient for gradient in gradients if gradient is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
    if norm.device.type != "cpu":
        torch._foreach_mul_(found, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    elif (scale := max_norm / (norm.item() + 1e-6)) < 1.0:
        torch._foreach_mul_(found, scale)
    return norm
