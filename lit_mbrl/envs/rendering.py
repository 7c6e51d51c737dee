"""Pictures without a screen: which graphics library draws, and a `VectorEnv` that shows every frame of an episode."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from tensordict import TensorDict, TensorDictBase

from lit_mbrl.envs.pool import LocalPool
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.vector import VectorEnv
from lit_mbrl.errors import UserError

_GL_BACKENDS = ("egl", "osmesa", "glfw")
_FRAMES_PER_SECOND = 30  # of environments that name no rate


class FilmedEnv(VectorEnv):
    """One copy of an environment, in this process, that shows every frame of its first episode.

    Args:
        config: which environment; made with `render_mode: rgb_array`, whatever the config says.
        seed: of the episode.
        show: is called with each picture `[h, w, 3]` uint8, from the first observation to the last.

    Raises:
        UserError: if the environment cannot be made or has no pictures.
    """

    def __init__(self, config: EnvConfig, seed: int, show: Callable[[np.ndarray], None]) -> None:
        kwargs = {**_camera(config), **config.kwargs, "render_mode": "rgb_array"}
        super().__init__(replace(config, num_envs=1, workers=False, kwargs=kwargs), seed)
        self._show, self._over = show, False
        assert isinstance(self._pool, LocalPool)
        (self._copy,) = self._pool.envs
        _draw_fast(self._copy)

    @property
    def frames_per_second(self) -> float:
        """The rate at which the environment runs in real time, as it says itself."""
        return float(self._copy.metadata.get("render_fps") or _FRAMES_PER_SECOND)

    def _reset(self, tensordict: TensorDictBase | None = None, **options: Any) -> TensorDict:
        out = super()._reset(tensordict, **options)
        self._film()
        return out

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        out = super()._step(tensordict)
        self._film()
        self._over = self._over or bool(out["done"])
        return out

    def _film(self) -> None:
        if self._over:  # TorchRL resets what is done, and that is the next episode's first frame
            return
        picture = self._copy.render()
        if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)):
            raise UserError("data.env.name", self.config.name, "an environment that renders pictures (rgb_array)")
        self._show(picture)


def prepare_rendering(name: str) -> None:
    """Sets what the graphics libraries read from the process's environment; to be called before an environment is made.

    Raises:
        UserError: if MuJoCo is to render the environment and no graphics library can.
    """
    # No window and no sound, also where there is a screen.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not _is_mujoco(name):
        return
    given = os.environ.get("MUJOCO_GL")
    backend = gl_backend((given,) if given else _GL_BACKENDS)
    if backend is None:
        raise UserError(
            "data.env.name",
            name,
            f"a graphics library that MuJoCo can draw with ({f'MUJOCO_GL={given}' if given else 'EGL or OSMesa'}; "
            "Debian and Ubuntu: apt install libegl1 libgl1-mesa-dri, or libosmesa6)",
        )
    os.environ["MUJOCO_GL"] = backend


def require_drawing(name: str) -> None:
    """Checks that MuJoCo, which has been imported by now and has chosen, was told how to draw without a screen.

    Raises:
        UserError: if it was not.
    """
    given = os.environ.get("MUJOCO_GL")
    if _is_mujoco(name) and given not in ("egl", "osmesa"):
        expected = f"MUJOCO_GL=egl or osmesa in the environment of the command to film {name} while it trains"
        raise UserError("data.env.name", name, expected)


def gl_backend(candidates: tuple[str, ...]) -> str | None:
    """The first value of `MUJOCO_GL` with which MuJoCo can draw here, found by trying in a process of its own.

    A wrong value makes `import mujoco` itself fail, so this process must not find out by trying.
    """
    code = "import mujoco; context = mujoco.GLContext(64, 64); context.make_current(); context.free()"
    for candidate in candidates:
        environment = {**os.environ, "MUJOCO_GL": candidate}
        if subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).returncode == 0:
            return candidate
    return None


def _camera(config: EnvConfig) -> dict[str, Any]:
    """The camera that follows the body, where the config names none: most bodies run out of sight."""
    chosen = any("camera" in name for name in config.kwargs)
    return {"camera_name": "track"} if _is_gymnasium_mujoco(config.name) and not chosen else {}


def _draw_fast(env: gym.Env) -> None:
    """Leaves out shadows, mirrors and smoothed edges of MuJoCo: without a GPU 160 instead of 8 pictures per second."""
    model = getattr(env.unwrapped, "model", None)
    if hasattr(model, "mat_reflectance"):
        model.mat_reflectance[:] = 0.0
        model.light_castshadow[:] = 0
        model.vis.quality.offsamples = 0


def _is_mujoco(name: str) -> bool:
    return _is_gymnasium_mujoco(name) or name.startswith("dmc/")


def _is_gymnasium_mujoco(name: str) -> bool:
    registered = gym.registry.get(name)
    point = str(registered.entry_point) if registered is not None else ""
    return name.partition("/")[0] in ("poplin", "mbpo") or point.startswith("gymnasium.envs.mujoco")
