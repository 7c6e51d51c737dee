"""The optimiser of every update."""

from __future__ import annotations

import torch


class Adam(torch.optim.Adam):
    """Fused Adam whose step on a CPU does not look for accelerators first.

    torch asks for one at every step, to check CUDA graph capture; after Lightning is imported that question goes to the
    NVIDIA library (`PYTORCH_NVML_BASED_CUDA_CHECK`) and takes three times as long as a small network's step.
    """

    def _accelerator_graph_capture_health_check(self) -> None:
        if self.param_groups[0]["params"][0].device.type != "cpu":
            super()._accelerator_graph_capture_health_check()
