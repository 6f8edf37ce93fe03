"""`alert-twin watch`: a run in the terminal while it goes, and its end."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare the subcommand."""
    watch = commands.add_parser("watch", help="show a run while it goes: queue, workers, alerts, latency",
                                description="exit code: 0 the run is done or goes on, 1 it failed or was killed")
    watch.add_argument("run", type=Path, help="the run folder, written by another process")
    watch.add_argument("--once", action="store_true", help="show one frame and end")
    watch.add_argument("--every", type=_seconds, default=1.0, metavar="S", help="seconds between frames, or between "
                       "lines where there is no terminal; default: 1")
    watch.set_defaults(call=_watch)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 3600 seconds, got {text!r}")
    return value


def _watch(options: argparse.Namespace) -> int:
    from twin.watch import watch

    return watch(options.run, once=options.once, every_s=options.every)
