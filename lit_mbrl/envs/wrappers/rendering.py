"""Chooses the graphics library that draws, without a screen and without torch."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium as gym

from lit_mbrl.utils.errors import OptionError

_GL_BACKENDS = ("egl", "osmesa", "glfw")
_TRIED = "LIT_MBRL_GL"  # in the environment of the process: the value of MUJOCO_GL that was seen to work


def prepare_rendering(name: str) -> None:
    """Sets what the graphics libraries read from the process's environment; to be called before an environment is made.

    Raises:
        OptionError: if MuJoCo is to render the environment and no graphics library can.
    """
    # No window and no sound, also where there is a screen.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not is_mujoco(name):
        return
    given = os.environ.get("MUJOCO_GL")
    backend = gl_backend((given,) if given else _GL_BACKENDS)
    if backend is None:
        raise OptionError(
            "data.env.name",
            name,
            f"a graphics library that MuJoCo can draw with ({f'MUJOCO_GL={given}' if given else 'EGL or OSMesa'}; "
            "Debian and Ubuntu: apt install libegl1 libgl1-mesa-dri, or libosmesa6)",
        )
    os.environ["MUJOCO_GL"] = backend


def prepare_once(name: str) -> None:
    """`prepare_rendering`, but for what this process, or the one that started it, has tried already.

    Raises:
        OptionError: as `prepare_rendering`.
    """
    given = os.environ.get("MUJOCO_GL")
    if not is_mujoco(name) or given is None or os.environ.get(_TRIED) != given:
        prepare_rendering(name)
        if is_mujoco(name):
            os.environ[_TRIED] = os.environ["MUJOCO_GL"]


def require_rendering(name: str) -> None:
    """Checks that MuJoCo, which has been imported by now and has chosen, was told how to draw without a screen.

    Raises:
        OptionError: if it was not.
    """
    given = os.environ.get("MUJOCO_GL")
    if is_mujoco(name) and given not in ("egl", "osmesa"):
        expected = f"MUJOCO_GL=egl or osmesa in the environment of the command to film {name} while it trains"
        raise OptionError("data.env.name", name, expected)


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


def fast_rendering(env: gym.Env) -> None:
    """Leaves out shadows, mirrors and smoothed edges of MuJoCo: without a GPU 160 instead of 8 images per second."""
    model = getattr(env.unwrapped, "model", None)
    if hasattr(model, "mat_reflectance"):
        model.mat_reflectance[:] = 0.0
        model.light_castshadow[:] = 0
        model.vis.quality.offsamples = 0


def is_mujoco(name: str) -> bool:
    """Returns whether MuJoCo simulates, and so draws, an environment."""
    return is_gymnasium_mujoco(name) or name.startswith("dmc/")


def is_gymnasium_mujoco(name: str) -> bool:
    """Returns whether it is one of Gymnasium's MuJoCo environments, or is made from one."""
    registered = gym.registry.get(name)
    point = str(registered.entry_point) if registered is not None else ""
    return name.partition("/")[0] in ("poplin", "mbpo") or point.startswith("gymnasium.envs.mujoco")
