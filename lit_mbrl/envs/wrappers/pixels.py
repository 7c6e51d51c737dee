"""Images as observations, drawn once per step of the agent, without a screen.

| environment | drawn by |
|---|---|
| Gymnasium's MuJoCo, `poplin/`, `mbpo/`, `dmc/` | MuJoCo, with EGL or OSMesa |
| PyBullet | its own software renderer |
| whose observation is an image (CarRacing) | that image, resized |
| others (classic control) | `render_mode: rgb_array`, resized |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from lit_mbrl.envs.spec import EnvConfig, PixelConfig
from lit_mbrl.envs.state import StatefulWrapper
from lit_mbrl.envs.wrappers.images import channel_first, is_image, resize
from lit_mbrl.envs.wrappers.rendering import fast_rendering, is_gymnasium_mujoco, is_mujoco, prepare_once
from lit_mbrl.utils.errors import OptionError, require

_MUJOCO: dict[str, str] = {}  # whose renderer this process has; each takes for granted that there is no other


def arguments(config: EnvConfig) -> dict[str, Any]:
    """The constructor's arguments with those that images need; to be called before the environment is made.

    Raises:
        OptionError: if nothing here can draw the environment.
    """
    pixels = _section(config)
    prepare_once(config.name)
    needed: dict[str, Any] = {"render_mode": "rgb_array"}
    if is_gymnasium_mujoco(config.name):
        needed |= {"width": pixels.size, "height": pixels.size}
        camera = "track" if pixels.camera is None else pixels.camera
        needed["camera_name" if isinstance(camera, str) else "camera_id"] = camera
    given = sorted(needed.keys() & config.kwargs.keys() - {"render_mode"})
    require(not given, "data.env.kwargs", config.kwargs, f"{', '.join(given)} in data.env.pixels instead")
    return {**config.kwargs, **needed}


class PixelObservation(StatefulWrapper):
    """The environment's image in the place of its observation, uint8 `[3, size, size]`.

    Args:
        env: made with the arguments that `arguments` returned.
        config: what was asked for.

    Raises:
        OptionError: if the environment has no images or not that camera.
    """

    def __init__(self, env: gym.Env, config: EnvConfig) -> None:
        super().__init__(env)
        pixels = _section(config)
        self._size = pixels.size
        self._own = is_image(env.observation_space)
        require(
            pixels.camera is None or is_mujoco(config.name),
            "data.env.pixels.camera",
            pixels.camera,
            f"null for {config.name}, which has one view",
        )
        if pixels.fast:
            fast_rendering(env)
        self._draw: Callable[[], Any] = _drawer(env, config.name, pixels)
        self._last: np.ndarray | None = None
        if not self._own:
            env.reset()
            try:
                image = self._draw()
            except NotImplementedError:
                image = None
            except ValueError as error:
                raise OptionError("data.env.pixels.camera", pixels.camera, f"a camera ({error})") from error
            if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
                raise OptionError("data.env.name", config.name, "an environment that renders images (rgb_array)")
        channels = env.observation_space.shape[0] if self._own else 3  # type: ignore[index]
        self.observation_space = Box(0, 255, (channels, self._size, self._size), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Image [C, size, size] uint8 and info."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict]:
        """Gymnasium's step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), reward, terminated, truncated, info

    def render(self) -> Any:
        """Returns the image that the agent sees, `[size, size, C]`."""
        return self._last

    def image(self, drawn: np.ndarray) -> np.ndarray:
        """Returns what an agent sees of an image `[H, W, C]` uint8: `[C, size, size]`."""
        return channel_first(resize(drawn, self._size))

    def _observe(self, observation: np.ndarray) -> np.ndarray:
        image = np.moveaxis(observation, 0, -1) if self._own else self._draw()
        self._last = resize(image, self._size)
        return channel_first(self._last)


def _section(config: EnvConfig) -> PixelConfig:
    assert config.pixels is not None  # or nobody asks for images
    return config.pixels


def _drawer(env: gym.Env, name: str, pixels: PixelConfig) -> Callable[[], np.ndarray]:
    """Returns a function that draws an image `[H, W, 3]`, of the right size where the environment can do so."""
    inner: Any = env.unwrapped
    if is_mujoco(name):
        family = "dmc/" if name.startswith("dmc/") else "Gymnasium"
        require(
            _MUJOCO.setdefault("renderer", family) == family,
            "data.env.name",
            name,
            f"environments of {_MUJOCO['renderer']} alone in a process that has drawn with its renderer",
        )
    if name.startswith("dmc/"):
        return lambda: inner.render_image(pixels.size, 0 if pixels.camera is None else pixels.camera)
    if is_gymnasium_mujoco(name):

        def draw() -> np.ndarray:
            # `render` draws in whatever context is current, which may be another environment's: black or wrong.
            inner.mujoco_renderer._get_viewer("rgb_array").make_context_current()
            return inner.render()

        return draw
    if hasattr(inner, "_render_width"):  # PyBullet
        inner._render_width = inner._render_height = pixels.size
    return env.render  # type: ignore[return-value]
