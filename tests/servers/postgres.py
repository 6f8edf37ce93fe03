"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, reached through a socket in it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

REQUIRED = os.environ.get("ALERT_TWIN_SERVERS") == "required"
_ACCOUNTS = ("postgres", "nobody")           # the server refuses to run as root
_PATIENCE_S = 60.0


class Absent(Exception):
    """There is no PostgreSQL here, or none that may run; says why."""


def programs() -> Path:
    """The folder of initdb and postgres: the newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise Absent("PostgreSQL is not installed (no initdb in /usr/lib/postgresql/*/bin or on the path)")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@contextmanager
def running(*, settings: tuple[str, ...] = ()) -> Iterator[str]:
    """A new cluster's URL without a database, `postgresql://user@/{database}?host=FOLDER`, while it runs."""
    binaries, prefix, account = programs(), *_account()
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))       # a socket's path has 107 bytes at most
    log, server = folder / "log", None
    try:
        if prefix:
            shutil.chown(folder, account, -1)
        subprocess.run([*prefix, binaries / "initdb", "-D", folder / "data", "-U", "twin", "-A", "trust", "-N",
                        "--locale=C.UTF-8", "-E", "UTF8"], check=True, capture_output=True, text=True, cwd=folder)
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*prefix, binaries / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=",
                 "-c", "fsync=off", "-c", "shared_buffers=64MB", *(word for one in settings for word in ("-c", one))],
                stdout=output, stderr=output, cwd=folder)
        _wait(binaries, folder, server, log)
        yield f"postgresql://twin@/{{database}}?host={folder}"
    except subprocess.CalledProcessError as error:
        raise Absent(f"PostgreSQL does not run here: {error.stderr.strip()}") from error
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)          # fast: it does not wait for clients
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)     # at once
                server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def new_store(server: str, packets: Path) -> str:
    """The URL of an empty prompt store, in a schema of its own."""
    import psycopg
    name = f"t{uuid4().hex}"
    with psycopg.connect(server.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server.format(database='postgres')}&options=-csearch_path%3D{name}&packets={packets}"


def _account() -> tuple[list[str], str]:
    """What to put before a command so that it does not run as root."""
    if os.geteuid() != 0:
        return [], ""
    setpriv = shutil.which("setpriv")
    for name in _ACCOUNTS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if setpriv is not None:
            return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"], name
    raise Absent("PostgreSQL does not run as root, and there is no setpriv or no other account")


def _wait(binaries: Path, folder: Path, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        ready = subprocess.run([binaries / "pg_isready", "-h", folder, "-U", "twin", "-d", "postgres"],
                               capture_output=True, check=False)
        if ready.returncode == 0:
            return
        time.sleep(0.05)
    raise Absent(f"PostgreSQL did not start: {log.read_text(errors='replace')[-500:]}")
