"""`alert-twin packets FILE...`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: Commands) -> None:
    """Declare it."""
    packets = commands.add_parser("packets", help="show what alert packets hold, check them, and write their cutouts",
                                  description="Every packet is read under its own version's schema and checked against "
                                  "the rules of alerts. Exit code 1 if something is wrong with one.")
    packets.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a packet as on the wire, an Avro file of "
                         "alerts, one of an archive (.avro.gz), or a folder of such, as RUN/alerts")
    packets.add_argument("--id", type=int, nargs="+", default=[], metavar="ID", help="these diaSourceIds alone")
    packets.add_argument("--full", action="store_true", help="the whole alert as JSON in place of a line")
    packets.add_argument("--fields", action="store_true", help="say at the end which fields have a value how often")
    packets.add_argument("--cutouts", type=Path, metavar="DIR", help="write each cutout as FITS, and a picture of the "
                         "three as PNG")
    packets.set_defaults(call=_packets)


def _packets(options: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from twin.packet_files import filling, heading, line, look, whole, write_cutouts

    n = wrong = written = 0
    alerts = []
    for found in look(options.files, only=options.id):
        if n == 0 and not options.full:
            print(heading())
        n, wrong = n + 1, wrong + bool(found.problems)
        print(whole(found.alert) if options.full and found.alert is not None else line(found))
        if options.full and found.alert is not None and found.problems:
            print(line(found))
        if options.fields and found.alert is not None:
            alerts.append(found.alert)
        if options.cutouts is not None:
            written += write_cutouts(found, options.cutouts)
    if not n:
        raise InputError(f"no packet with the id {', '.join(map(str, options.id))} in {len(options.files)} files")
    if options.fields and alerts:
        print(filling(alerts))
    if not options.full:
        print(f"{n} packets, {n - wrong} sound, {wrong} not" + (f"; {written} cutouts in {options.cutouts}"
                                                               if options.cutouts is not None else ""))
    return 1 if wrong else 0
