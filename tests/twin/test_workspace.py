"""A command's temporary place is gone when the command is, however it ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import InputError
from twin.workspace import PREFIX, Child, git, sweep, workspace

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from twin.workspace import Child, workspace
repository, revision = Path(sys.argv[1]), sys.argv[2]
with workspace() as place:
    tree = place.worktree(repository, revision)
    print(tree, flush=True)
    sleeper = (sys.executable, "-c", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    place.run([Child("a sleeper", sleeper, tree, {})], 1)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of one commit, whose hooks would leave a trace."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for words in (["init", "--quiet"], ["config", "user.name", "a"], ["config", "user.email", "a@b"]):
        assert git(folder, *words).returncode == 0
    (folder / "file").write_text("1")
    git(folder, "add", "file")
    assert git(folder, "commit", "--quiet", "-m", "first").returncode == 0
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {folder}/hooked\n")
    hook.chmod(0o755)
    return folder


def head(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD").stdout.strip()


def worktrees(repository: Path) -> list[str]:
    """Those beside the repository itself, and what git's books hold of any."""
    listed = git(repository, "worktree", "list", "--porcelain").stdout
    books = repository / ".git" / "worktrees"
    return [line for line in listed.splitlines() if line.startswith("worktree ")][1:] + (
        [p.name for p in books.iterdir()] if books.is_dir() else [])


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        time.sleep(0.02)
    return true()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def holder(repository: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that holds a worktree in which its child sleeps, and the child's id."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(repository), head(repository)], cwd=ROOT, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    tree = Path(process.stdout.readline().strip())
    assert until(lambda: (tree / "pid").is_file() and bool((tree / "pid").read_text()))
    process.stdout.close()
    return process, int((tree / "pid").read_text())


def test_a_place_is_gone_after_its_end_and_after_an_error(temporary: Path, repository: Path) -> None:
    with workspace() as place:
        tree = place.worktree(repository, head(repository))
        assert (tree / "file").read_text() == "1"
        assert worktrees(repository)
        assert not (repository / "hooked").exists()
    assert list(temporary.iterdir()) == worktrees(repository) == []

    def fail() -> None:
        with workspace() as place:
            place.worktree(repository, head(repository))
            (place.new("half") / "written").mkdir(parents=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(temporary.iterdir()) == worktrees(repository) == []


def test_other_worktrees_stay(temporary: Path, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "--quiet", "--detach", str(tmp_path / "theirs"))
    with workspace() as place:
        place.worktree(repository, head(repository))
    assert worktrees(repository) == [f"worktree {tmp_path / 'theirs'}", "theirs"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_clears_the_place_and_ends_the_children(temporary: Path, repository: Path, number: int) -> None:
    process, child = holder(repository)
    assert worktrees(repository)
    assert alive(child)
    process.send_signal(number)
    assert process.wait(20) in (128 + number, -number, 1)
    assert list(temporary.iterdir()) == worktrees(repository) == []
    assert until(lambda: not alive(child))


def test_what_a_killed_command_left_goes_with_the_next_and_what_a_living_one_uses_stays(
        temporary: Path, repository: Path) -> None:
    killed, orphan = holder(repository)
    living, child = holder(repository)
    killed.kill()
    killed.wait()
    assert len(list(temporary.glob(f"{PREFIX}*"))) == 2   # nobody could clear it
    sweep()
    assert len(list(temporary.glob(f"{PREFIX}*"))) == 1
    assert len(worktrees(repository)) == 2                # one, in both lists
    assert alive(child)
    living.terminate()
    living.wait(20)
    os.kill(orphan, signal.SIGKILL)
    assert list(temporary.iterdir()) == worktrees(repository) == []


def test_a_child_that_fails_or_is_killed_ends_the_others_in_one_line(temporary: Path, tmp_path: Path) -> None:
    sleeper = Child("sleeper", (sys.executable, "-c", f"import os, time; open('{tmp_path}/pid', 'w').write("
                                "str(os.getpid())); time.sleep(60)"), tmp_path, {})
    wait = f"import os, time\nwhile not os.path.exists('{tmp_path}/pid'): time.sleep(0.01)\n"
    for ending, message in (("raise SystemExit('alert-twin: no such key')", "^failing: no such key$"),
                            ("os.kill(os.getpid(), 9)", r"^failing: its process was killed \(SIGKILL\)$"),
                            ("raise SystemExit(3)", "^failing: ended with exit code 3$")):
        (tmp_path / "pid").unlink(missing_ok=True)
        failing = Child("failing", (sys.executable, "-c", wait + ending), tmp_path, {})
        with workspace() as place, pytest.raises(InputError, match=message):
            place.run([sleeper, failing], 2)
        pid = int((tmp_path / "pid").read_text())
        assert until(lambda pid=pid: not alive(pid))  # type: ignore[misc]  # a lambda with its value bound
    assert list(temporary.iterdir()) == []


def test_children_run_so_many_at_once_and_are_reported_when_done(temporary: Path, tmp_path: Path) -> None:
    code = "import os, time; name = str(time.monotonic()); os.mkdir(name); time.sleep(0.3); os.rmdir(name)"
    crowd: list[int] = []

    def look(child: Child) -> None:
        crowd.append(len(list(tmp_path.glob("*.*"))))

    with workspace() as place:
        place.run([Child(str(i), (sys.executable, "-c", code), tmp_path, {}) for i in range(4)], 2, look)
    assert len(crowd) == 4
    assert max(crowd) <= 2
