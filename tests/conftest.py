"""Shapes are enforced while testing only: the hook wraps the pure functions before anything imports them."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["lit_mbrl.losses", "lit_mbrl.returns", "lit_mbrl.imagination"], "beartype.beartype")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same torch seed."""
    torch.manual_seed(0)
    return 0
