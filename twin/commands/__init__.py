"""Subcommands of services, a module each: `add(commands)` declares one, and imports what it runs when it runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

    Commands = _SubParsersAction[ArgumentParser]


def add_all(commands: "Commands") -> None:
    """Declare all of them."""
    from twin.commands import counts, sweep

    counts.add(commands)
    sweep.add(commands)
