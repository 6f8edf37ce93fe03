"""What the morning has done, on disk: a line of JSON for each step begun and each ended, fsynced.

    {"night": 20270822, "step": "catchup", "event": "ended", "mjd_tai": 61640.5, "result": {"done": 2}}

A line that a kill cut short is not there. Steps are idempotent, so one that began and did not end is done again.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of a store, in a file that need not exist yet."""

    path: Path

    def entries(self) -> list[dict[str, Any]]:
        """All whole lines, in order; InputError names a line that is none of ours."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        whole = text[:text.rfind("\n") + 1]
        found = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                found.append({**entry, "night": int(entry["night"]), "step": str(entry["step"]),
                              "event": str(entry["event"]), "mjd_tai": float(entry["mjd_tai"])})
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.path}:{number}: not an entry of a batch journal ({error})") from None
        return found

    def results(self, night: int) -> dict[str, Any]:
        """The results of the steps of a night that have ended, the last of each."""
        return {e["step"]: e.get("result") for e in self.entries() if e["night"] == night and e["event"] == "ended"}

    def latest(self) -> float:
        """The latest time of any entry; minus infinity without one."""
        return max((e["mjd_tai"] for e in self.entries()), default=float("-inf"))

    def note(self, night: int, step: str, event: str, mjd_tai: float, result: Any = None) -> None:
        """Add a line, and let it be on disk before anything else happens."""
        entry = {"night": night, "step": step, "event": event, "mjd_tai": mjd_tai,
                 **({} if result is None else {"result": result})}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":        # what a kill cut short
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
