"""`alert-twin resume`: a run or a sweep that was killed, done again or to its end."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare the subcommand."""
    from twin.cli import _at_least_one

    resume = commands.add_parser("resume", help="take up a run or a sweep that was killed, from its folder",
                                 description="A night is done again from the scenario in its folder, with what the "
                                 "cache kept; a sweep does the platforms that are left. The result is that of a run "
                                 "that nothing disturbed.")
    resume.add_argument("run", type=Path, help="the folder of the killed run or sweep")
    resume.add_argument("--processes", type=_at_least_one, default=os.cpu_count() or 1)
    resume.add_argument("--quiet", action="store_true", help="no progress bar")
    resume.set_defaults(call=_resume)


def _resume(options: argparse.Namespace) -> int:
    from twin.cli import _ending, _opened, _progress
    from twin.resume import resume

    with _ending(), _progress(options.quiet) as progress:
        said, expected = resume(options.run, processes=options.processes, cache=_opened(None), progress=progress)
    print(said)
    return 0 if expected else 1
