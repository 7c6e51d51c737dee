"""lit_mbrl: model-based and maximum-entropy reinforcement learning as Lightning modules.

    import lit_mbrl

    run = lit_mbrl.fit("conf/sac_svg.yaml", seed_everything=1)
    agent = run.agent()  # or lit_mbrl.load("runs/sac_svg/...")
    action = agent.act(observation)

What is behind a name is imported when it is first used, since torch takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mbrl.api.agent import TrainedAgent, load
    from lit_mbrl.api.algorithms import list_algorithms
    from lit_mbrl.api.capabilities import Capabilities, capabilities
    from lit_mbrl.api.runs import Run, evaluate, fit, make_env

__version__ = "0.1.0"
_HOMES = {
    "Capabilities": "lit_mbrl.api.capabilities",
    "TrainedAgent": "lit_mbrl.api.agent",
    "capabilities": "lit_mbrl.api.capabilities",
    "load": "lit_mbrl.api.agent",
    "list_algorithms": "lit_mbrl.api.algorithms",
    "Run": "lit_mbrl.api.runs",
    "evaluate": "lit_mbrl.api.runs",
    "fit": "lit_mbrl.api.runs",
    "make_env": "lit_mbrl.api.runs",
}
__all__ = [
    "Capabilities",
    "Run",
    "TrainedAgent",
    "capabilities",
    "evaluate",
    "fit",
    "list_algorithms",
    "load",
    "make_env",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
