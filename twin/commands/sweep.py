"""`alert-twin sweep`: one night on many platforms."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare the subcommand."""
    from twin.cli import _at_least_one

    sweep = commands.add_parser("sweep", help="one night on many platforms: latency, and the cheapest that will do")
    sweep.add_argument("scenario", type=Path, help="a scenario of fidelity counts")
    sweep.add_argument("--over", action="append", default=[], required=True, metavar="KEY=VALUES",
                       help="an axis: platform.workers=300,600,900 or =300:1500:300; may be given again")
    sweep.add_argument("--out", type=Path, required=True, help="folder of sweep.html and surface.csv; new or empty")
    sweep.add_argument("--seed", type=int, help="instead of the scenario's")
    sweep.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    sweep.add_argument("--cluster", default="", metavar="URL", help="simulate on the workers of the Dask scheduler "
                       "there, e.g. tcp://host:8786 (extra `cluster`)")
    sweep.add_argument("--quiet", action="store_true", help="no progress bar")
    sweep.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of all platforms: counts.visits=200")
    sweep.set_defaults(call=_sweep)


def _sweep(options: argparse.Namespace) -> int:
    from twin.cli import _ending, _progress
    from twin.sweep import sweep

    with _ending(), _progress(options.quiet) as progress:
        said = sweep(options.scenario, options.over, options.out, overrides=options.overrides, seed=options.seed,
                     processes=options.processes, cluster=options.cluster, progress=progress)
    print(said)
    return 0
