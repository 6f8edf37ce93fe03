"""`alert-twin counts`: the law of numbers at counts fidelity, fitted to nights at catalogue fidelity."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands

NOTE = ("The law of a detector's numbers, fitted by `alert-twin counts`; visit_spread is assumed (DMTN-102),\n"
        "satellites are none, since the allow-list service knows of all.")
VISIT_SPREAD = 0.5     # of ln of the density between fields: DMTN-102 has 5,100 alerts off the plane and 32,000 in it


def add(commands: "Commands") -> None:
    """Declare the subcommand."""
    from twin.cli import SEEDS

    counts = commands.add_parser("counts", help="fit the numbers of nights at counts fidelity to catalogue fidelity")
    counts.add_argument("scenario", type=Path, nargs="?", help="default: the shipped counts_sources.toml")
    counts.add_argument("--seeds", **SEEDS, required=True, help="nights: 1 2 3, or 1-60")
    counts.add_argument("--out", type=Path, required=True, metavar="FILE", help="the counts model to write")
    counts.set_defaults(call=_counts)


def _counts(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from twin.counts import CountsModel
    from twin.counts_fit import fit_model, sample, to_toml
    from twin.scenario import find_file, read_scenario

    path = options.scenario or find_file("counts_sources.toml", Path(), "scenario")
    if not options.out.absolute().parent.is_dir() or options.out.is_dir():
        raise InputError(f"{options.out}: the model must be a file in a folder that exists")
    rows = sample(read_scenario(path), options.seeds, say=lambda line: print(line, file=sys.stderr))
    source = (f"{len(rows)} detector-visits at catalogue fidelity of {path.name}, seeds {options.seeds[0]} to "
              f"{options.seeds[-1]}")
    model = fit_model(rows, source, CountsModel(source="", visit_spread=VISIT_SPREAD))
    options.out.write_text(to_toml(model, NOTE))
    print(f"{model.source}: {options.out}")
    return 0
