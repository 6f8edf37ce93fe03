"""Subcommands of services, a module each: `add(commands)` declares one, and imports what it runs when it runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

    Commands = _SubParsersAction[ArgumentParser]


def add_all(commands: "Commands") -> None:
    """Declare all of them."""
    from twin.commands import archive, batch, counts, deliver, filter, packets, ppdb, schemas, sweep

    for command in (counts, sweep, packets, deliver, archive, filter, schemas, batch, ppdb):
        command.add(commands)
