"""Java servers as child processes that end with their parent."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

JAVA_HOME_OPTIONS: Final = ("-Xshare:auto", "-XX:+UseSerialGC")
_PR_SET_PDEATHSIG: Final = 1


def free_ports(n: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    held = [socket.socket() for _ in range(n)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@dataclass(slots=True)
class JavaServer:
    """A Java program with its log beside its data."""

    arguments: Sequence[str]
    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, ready: Callable[[], bool], timeout_s: float = 90.0) -> None:
        """Start it, and return when it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(["java", *JAVA_HOME_OPTIONS, *self.arguments], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, cwd=self.folder, preexec_fn=_end_with_parent)
        end = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"{self.arguments[-1]} did not start: {self.log()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setpgid(0, 0)       # an interrupt at the keyboard is the parent's to handle
