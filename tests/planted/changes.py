"""Changes of the pipeline that are planted to be found, and changes without effect that must be called nothing.

Each is a TOML file:

    about       what is changed
    metrics     keys of metrics, named beforehand, one of which must get worse        (planted)
    step        the Step to blame                                                     (planted)
    overrides   settings, and / or
    [[edit]]    file, old, new: a patch of the code, `old` found exactly once
    processes   operating-system processes of the run                                 (null)
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of text in a file, and what replaces it."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """The file's text with the change; ValueError where its place is not found exactly once."""
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: the text to change occurs {found} times, expected once: {self.old[:60]!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Change:
    """A planted or a null change."""

    name: str
    about: str
    metrics: tuple[str, ...]
    step: str
    overrides: tuple[str, ...]
    edits: tuple[Edit, ...]
    processes: int

    def apply(self, root: Path) -> None:
        """Edit the code in a folder."""
        for edit in self.edits:
            path = root / edit.file
            path.write_text(edit.applied(path.read_text(encoding="utf-8")), encoding="utf-8")


def read(path: Path) -> Change:
    """The change of a file."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    edits = tuple(Edit(**edit) for edit in data.pop("edit", []))
    return Change(path.stem, data.pop("about"), tuple(data.pop("metrics", ())), data.pop("step", ""),
                  tuple(data.pop("overrides", ())), edits, data.pop("processes", 0), **data)


def planted() -> list[Change]:
    """Those that must be found."""
    return [read(path) for path in sorted(HERE.glob("*.toml"))]


def null() -> list[Change]:
    """Those that must be called nothing."""
    return [read(path) for path in sorted((HERE / "null").glob("*.toml"))]
