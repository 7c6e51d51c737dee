"""A `VectorEnv` that shows every frame of an episode, without a screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lit_mbrl.envs.pool import LocalPool
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.transition import Transition
from lit_mbrl.envs.vector import VectorEnv
from lit_mbrl.envs.wrappers.rendering import fast_rendering, is_gymnasium_mujoco
from lit_mbrl.utils.errors import OptionError

_FRAMES_PER_SECOND = 30  # of environments that name no rate


class RecordedEnv(VectorEnv):
    """One copy of an environment, in this process, that shows every frame of its first episode.

    Args:
        config: which environment; made with `render_mode: rgb_array`, whatever the config says.
        seed: of the episode.
        show: is called with each image `[h, w, 3]` uint8, from the first observation to the last.

    Raises:
        OptionError: if the environment cannot be made or has no images.
    """

    def __init__(self, config: EnvConfig, seed: int, show: Callable[[np.ndarray], None]) -> None:
        kwargs = {**_camera(config), **config.kwargs, "render_mode": "rgb_array"}
        super().__init__(replace(config, num_envs=1, workers=False, kwargs=kwargs), seed)
        self._show, self._over = show, False
        assert isinstance(self._pool, LocalPool)
        (self._copy,) = self._pool.envs
        fast_rendering(self._copy)

    @property
    def frames_per_second(self) -> float:
        """The rate at which the environment runs in real time, as it says itself."""
        return float(self._copy.metadata.get("render_fps") or _FRAMES_PER_SECOND)

    def restart(self, rows: np.ndarray | None) -> np.ndarray:
        """See `VectorEnv.restart`."""
        observation = super().restart(rows)
        self._film()
        return observation

    def advance(self, action: np.ndarray) -> Transition:
        """See `VectorEnv.advance`."""
        transition = super().advance(action)
        self._film()
        self._over = self._over or bool(transition.terminated | transition.truncated)
        return transition

    def _film(self) -> None:
        if self._over:  # what is done is reset, and that is the next episode's first frame
            return
        image = self._copy.render()
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
            raise OptionError("data.env.name", self.config.name, "an environment that renders images (rgb_array)")
        self._show(image)


def _camera(config: EnvConfig) -> dict[str, Any]:
    """The camera that follows the body, where the config names none: most bodies run out of sight."""
    chosen = any("camera" in name for name in config.kwargs)
    return {"camera_name": "track"} if is_gymnasium_mujoco(config.name) and not chosen else {}
