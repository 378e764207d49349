"""Time, by rounds: all contenders in turn, so that what else the machine does falls on each alike."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timer:
    """CPU time of this process, all threads and the kernel's part included, and wall time."""

    cpu = 0.0
    wall = 0.0

    def __enter__(self) -> None:
        """Start."""
        self._start = (time.process_time(), time.perf_counter())

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.cpu = time.process_time() - self._start[0]
        self.wall = time.perf_counter() - self._start[1]


@dataclass
class Samples:
    """Seconds of each round of one contender, or why there are none."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    failure: str = ""


def in_rounds(
    contenders: Mapping[Key, Callable[[Timer], object]], rounds: int, *, warm_up: bool = True
) -> dict[Key, Samples]:
    """Run every contender once a round; each fills the timer that it is given, around the work alone.

    Args:
        contenders: What to run. One that raises is not run again, and its samples say why.
        rounds: How many rounds count.
        warm_up: Whether a round that does not count goes before them.
    """
    measured = {key: Samples() for key in contenders}
    for number in range(-1 if warm_up else 0, rounds):
        for key, run in contenders.items():
            samples, timer = measured[key], Timer()
            if samples.failure:
                continue
            gc.collect()
            try:
                run(timer)
            except ImportError as exc:
                samples.failure = f"not installed ({exc.name})"
            except Exception as exc:
                samples.failure = f"failed: {type(exc).__name__}: {' '.join(str(exc).split())[:120]}"
            else:
                if number >= 0:
                    samples.cpu.append(timer.cpu)
                    samples.wall.append(timer.wall)
        if number == -1:
            gc.collect()
            gc.freeze()  # the modules of one contender must not slow the collections of another
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return measured


def median(samples: Samples, what: str = "cpu") -> float:
    """The median of one kind of time; not a number if the contender failed."""
    return float("nan") if samples.failure else middle(getattr(samples, what))


def ratios(samples: Samples, base: Samples, what: str = "cpu") -> list[float]:
    """One contender's time over another's, round by round: what slows a whole round falls out."""
    over, under = getattr(samples, what), getattr(base, what)
    return [] if samples.failure or base.failure else [a / b for a, b in zip(over, under, strict=True)]


def middle(values: Sequence[float]) -> float:
    """The median; not a number for no values."""
    return statistics.median(values) if values else float("nan")


def spread(values: Sequence[float], factor: float = 1.0, digits: int = 1) -> str:
    """Median, minimum and maximum, each times the factor; a dash for no values."""
    if not values:
        return "-"
    centre, low, high = (f"{v * factor:,.{digits}f}" for v in (middle(values), min(values), max(values)))
    return f"{centre} ({low}-{high})"
