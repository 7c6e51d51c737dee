"""MBPO as a whole beside mbrl-lib's: the same task, networks, fits, rollouts and updates per environment step.

A turn is one period: one fit of the model (50 epochs), 100 000 one-step rollouts, 250 environment steps and 20 updates
of SAC after each of them. InvertedPendulum-v5 stands for mbrl-lib's own cart-pole: both have four observations and one
action, and both libraries have its termination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.contenders.peer_mbrl import PERIOD
from benchmarks.harness.pairs import interleave, ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import COMPILED, MBRL, OURS, Settings, running
from benchmarks.harness.work import Work

ORDER = (OURS, COMPILED, MBRL)
TASK, CONFIG = "InvertedPendulum-v5", "paper/mbpo/inverted_pendulum"
UPDATES, EPOCHS = 20, 50
# mbrl-lib explores for 5000 steps and fits for the first time a period later.
LEARNING_STARTS = 5000 + PERIOD


def works(settings: Settings) -> dict[str, tuple[str, Work]]:
    """Everybody's work."""
    period, updates, epochs = (20, 2, 1) if settings.quick else (PERIOD, UPDATES, EPOCHS)
    ours = (
        f"--data.utd_ratio={updates}",
        f"--model.model_train_freq={period}",
        f"--data.epoch_frames={period}",
        "--model.real_ratio=0",
        f"--model.model_max_epochs={epochs}",
        f"--model.model_patience={epochs}",
    )
    if settings.quick:
        ours += ("--model.rollout_batch_size=20", "--model.world_model.init_args.hidden_sizes=[8,8,8,8]")
    common = {"algorithm": CONFIG, "env": TASK, "learning_starts": LEARNING_STARTS}
    names = [name for name in ORDER if name not in settings.absent]
    return {
        name: (
            name,
            Work(**common, options=(f"epochs={epochs}", f"updates={updates}"))
            if name == MBRL
            else Work(**common, compile=name == COMPILED, options=ours),
        )
        for name in names
    }


def run(settings: Settings) -> Iterator[Table]:
    """One table: seconds per 1000 environment steps, by the clock and of the processor, and the ratios."""
    print("MBPO", flush=True)
    turn = 40 if settings.quick else PERIOD * UPDATES
    scale = 1000 / PERIOD
    processor: dict[str, list[float]] = {}
    with running(settings, works(settings)) as contenders:

        def block(name: str) -> Callable[[], float]:
            contender, processor[name] = contenders[name], []

            def once() -> float:
                wall = contender.turn(turn)
                processor[name].append(contender.processor)
                return wall

            return once

        wall = interleave({name: block(name) for name in contenders}, settings.pairs, 1, settings.say)
    header = [
        "who",
        "seconds per 1000 environment steps",
        "CPU seconds",
        "mbrl-lib / this one",
        "in CPU seconds",
    ]
    title = f"MBPO on {TASK}, 7 networks of 4 x 200, {UPDATES} updates per environment step"
    table = Table("mbpo", title, header, raw={"wall": wall, "processor": processor})
    for name in wall:
        cells = [str(spread([scale * value for value in seconds[name]])) for seconds in (wall, processor)]
        if MBRL in wall and name != MBRL:
            cells += [str(ratios(seconds[MBRL], seconds[name])) for seconds in (wall, processor)]
        else:
            cells += ["-", "-"]
        table.rows.append([name, *cells])
    yield table
