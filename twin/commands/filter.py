"""`alert-twin filter`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from twin.commands.consuming import add_stream

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: Commands) -> None:
    """Declare it."""
    parser = commands.add_parser("filter", help="run users' filters over the alerts of a stream, visit by visit")
    parser.add_argument("--config", type=Path, required=True, help="TOML: users, their filters, sinks and limits")
    add_stream(parser, "alert-twin-filter")
    parser.set_defaults(call=_filter)


def _filter(options: argparse.Namespace) -> int:
    from pipeline.serve.filter_config import read_filters
    from pipeline.serve.filters import FilterService
    from twin.commands.consuming import run_consumer

    service = FilterService(read_filters(options.config))
    try:
        tally = run_consumer(options, service, default_dead=Path("dead-letters"))
    finally:
        service.close()
    print(f"{service.alerts} alerts of {service.visits} visits, {tally.set_aside} set aside")
    for user, delivered in service.delivered.items():
        off = service.switched_off.get(user)
        print(f"{user}: {delivered} alerts" + (f"; switched off: {off}" if off else ""))
    return 0
