"""All random states of the process, in plain tensors and strings that load without executing code."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """States of torch (CPU and every CUDA device), numpy and python."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": json.dumps([name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)]),
        "python": json.dumps(random.getstate()),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `get_random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
    name, keys, position, has_gauss, cached = json.loads(state["numpy"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
