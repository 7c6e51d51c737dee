"""Start-up: from the start of the process to the first environment step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.harness.pairs import interleave, ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import BARE, OURS, PROGRAM, SB3, SHEEPRL, Settings
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Contender


def run(settings: Settings) -> Iterator[Table]:
    """Seconds, and beside ours."""
    print("start-up", flush=True)
    work = settings.sized(Work("sac", "Pendulum-v1"))
    names = [name for name in (OURS, SB3, SHEEPRL, BARE) if name not in settings.absent]

    def starting(name: str) -> Callable[[], float]:
        def start() -> float:
            python = settings.sheeprl if name == SHEEPRL else None
            contender = Contender(PROGRAM[name], work, python, in_thread=settings.quick)
            try:
                return contender.started()
            finally:
                contender.kill()

        return start

    contenders = {name: starting(name) for name in names}
    seconds = interleave(contenders, settings.pairs, 1, settings.say)
    table = Table("start_up", "Start-up: seconds to the first environment step", ["", "seconds", "lit_mbrl beside it"])
    table.raw = seconds
    for name in names:
        table.rows.append([name, str(spread(seconds[name])), str(ratios(seconds[OURS], seconds[name]))])
    yield table
