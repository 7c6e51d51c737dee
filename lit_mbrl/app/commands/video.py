"""`python -m lit_mbrl video`: deterministic episodes of a checkpoint as an mp4, without a screen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.application import Application
from lit_mbrl.app.commands.evaluate import validate_command
from lit_mbrl.app.commands.options import OptionParser, positive_integer, positive_number
from lit_mbrl.app.guard import run_command
from lit_mbrl.app.output import print_rank_zero, shorten
from lit_mbrl.app.run_folder import folder_of
from lit_mbrl.envs.wrappers.recording import RecordedEnv
from lit_mbrl.envs.wrappers.rendering import prepare_rendering
from lit_mbrl.utils.errors import OptionError, UsageError, require

_DESCRIPTION = """Films deterministic episodes of a checkpoint, one after the other, with the config of its run; they
are the first episodes that `evaluate` has. Every option of `validate` may be given, too; --trust lets a config that
comes with the checkpoint name modules that are not installed. Needs the packages of
`pip install 'lit-mbrl[video]'`."""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    return run_command(_film, argv)


def _film(argv: Sequence[str]) -> None:
    parser = OptionParser("video", _DESCRIPTION)
    parser.add_argument("--ckpt_path", required=True, help="the checkpoint to film")
    parser.add_argument("--episodes", default="1", help="number of episodes (default: %(default)s)")
    parser.add_argument("--out", help="the mp4 file (default: best.mp4 in the run folder for checkpoints/best.ckpt)")
    parser.add_argument("--fps", help="frames per second (default: what the environment says, its real time)")
    options, others = parser.parse_known_args(argv)
    episodes = positive_integer("episodes", options.episodes)
    fps = None if options.fps is None else positive_number("fps", options.fps)
    if options.out is not None:
        require(Path(options.out).suffix == ".mp4", "out", options.out, "a name that ends in .mp4")
    try:
        import imageio_ffmpeg  # noqa: F401  what imageio writes mp4 with
    except ImportError as error:
        raise UsageError("video: a package is missing: pip install 'lit-mbrl[video]'") from error
    command = validate_command(options.ckpt_path, episodes, others)
    Film([*command, "--trainer.limit_val_batches=0"], options.out, fps)


class Film(Application):
    """`validate` that films the episodes.

    Args:
        argv: a command line of `validate` that evaluates nothing.
        out: the file; None: named after the checkpoint.
        fps: frames per second; None: the environment's own.
    """

    def __init__(self, argv: Sequence[str], out: str | None, fps: float | None) -> None:
        self.out, self.fps = None if out is None else Path(out), fps
        super().__init__(argv)

    def before_instantiate_classes(self) -> None:
        """Chooses how to draw while no simulator is imported, and sees to it that the file can be written."""
        super().before_instantiate_classes()
        prepare_rendering(self.config[self.subcommand].data.init_args.env.name)
        assert self.saved_run is not None
        checkpoint = self.saved_run.path
        if self.out is None:
            self.out = (folder_of(checkpoint) or checkpoint.parent) / f"{checkpoint.stem}.mp4"
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.out.parent):
                pass
        except OSError as error:
            raise OptionError("out", self.out, f"a file that can be written ({error.strerror})") from error

    def validate(self, model: Algorithm, datamodule: Any, **_: Any) -> None:
        """Loads the checkpoint and films."""
        import imageio.v2 as imageio

        self.load_and_evaluate(model, datamodule)
        assert self.out is not None
        unfinished = self.out.with_name(f".{self.out.name}.part.mp4")
        unfinished.unlink(missing_ok=True)  # were it a link, another file would be written
        frames, returns, fps, writer = 0, [], self.fps, None

        def show(image: Any) -> None:
            nonlocal frames, writer
            if writer is None:
                # The common pixel format has a colour for four pixels, so sides have to be even.
                writer = imageio.get_writer(unfinished, fps=fps, macro_block_size=2, ffmpeg_log_level="error")
            writer.append_data(image)
            frames += 1

        try:
            # One after the other: with several renderers in a process MuJoCo's images may be another's, or black.
            for i in range(datamodule.eval_episodes):
                env = RecordedEnv(datamodule.env.eval_config(), datamodule.evaluation_seed + i, show)
                fps = fps or env.frames_per_second
                try:
                    episodes = datamodule.run_eval_episodes(env)
                finally:
                    env.close()
                returns.append(float((episodes["next", "reward"].squeeze(-1) * episodes["mask"]).sum()))
            writer.close()
            os.replace(unfinished, self.out)
        finally:
            if writer is not None:
                writer.close()
            unfinished.unlink(missing_ok=True)
        each = ", ".join(f"{value:.1f}" for value in returns)
        count = "1 episode" if len(returns) == 1 else f"{len(returns)} episodes"
        print_rank_zero(f"{shorten(self.out)}: {count}, {frames} frames at {fps:g} per second, return {each}")
