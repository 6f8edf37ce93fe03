"""Where code lies: the present tree, another folder, or a worktree of a revision, each with an interpreter that has its
dependencies.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import twin
from pipeline.errors import InputError
from twin.pool import THREAD_VARIABLES
from twin.workspace import Child, Workspace, git

PACKAGES: Final = ("twin", "pipeline", "simulators", "reports", "schemas", "scenarios")
CODE: Final = (*PACKAGES, "pyproject.toml", ":(exclude)scenarios/baselines")   # what decides results


@dataclass(frozen=True, slots=True)
class Checkout:
    """Code that can be run."""

    root: Path                 # the folder with `twin`, `pipeline`, ...
    python: Path
    version: "Version"


@dataclass(frozen=True, slots=True)
class Version:
    """What git knows of a folder of code."""

    revision: str              # of the last commit, 40 hexadecimal digits; empty without git
    dirty: bool                # its code is not as committed

    def __str__(self) -> str:
        if not self.revision:
            return "code without git"
        return self.revision[:7] + (" + uncommitted changes" if self.dirty else "")


def present() -> Path:
    """The folder of the code that is running."""
    return Path(twin.__path__[0]).resolve().parent


def version(root: Path) -> Version:
    """The commit of a folder of code, and whether the code has changed since."""
    if (top := _top(root)) is None:
        return Version("", False)
    head = git(top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").stdout.strip()
    changes = git(top, "status", "--porcelain", "--untracked-files=normal", "--", *CODE).stdout.strip()
    return Version(head, bool(changes))


def resolve(name: str, root: Path) -> str:
    """The commit of a name in the repository of a folder of code; InputError where either does not exist."""
    if (top := _top(root)) is None:
        raise InputError(f"{name!r} is neither a file nor a folder, and no revision: {root} is no git checkout")
    found = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found.returncode:
        shallow = git(top, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        raise InputError(f"unknown revision {name!r}" + (" (the repository is a shallow clone)" if shallow else ""))
    return found.stdout.strip()


def is_code(folder: Path) -> bool:
    """Whether a folder holds the project's code."""
    return all((folder / package).is_dir() for package in PACKAGES)


def fingerprint(root: Path) -> str:
    """A hash of all code and scenarios in a folder, recorded baselines aside."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root)
            if path.is_file() and "__pycache__" not in name.parts and "baselines" not in name.parts:
                digest.update(f"{name}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def check_out(revision: str, place: Workspace, environments: Path, say: Callable[[str], None]) -> Checkout:
    """A revision of the present repository in a worktree of its own, which goes with the place."""
    tree = place.worktree(present(), revision)
    if not is_code(tree):
        raise InputError(f"revision {revision[:7]} holds no code of the twin: no {', '.join(PACKAGES)}")
    return use(tree, place, environments, say, Version(revision, False))


def use(root: Path, place: Workspace, environments: Path, say: Callable[[str], None],
        known: Version | None = None) -> Checkout:
    """A folder of code with an interpreter for it: the present one, where the dependencies are the same."""
    if not is_code(root):
        raise InputError(f"{root}: no checkout of the twin, it lacks "
                         f"{', '.join(p for p in PACKAGES if not (root / p).is_dir())}")
    mine, its = dependencies(present()), dependencies(root)
    python = Path(sys.executable)
    if mine != its:
        python = _environment(root, its, place, environments, say)
    elif known is not None:
        _lend_kernels(root)
    found = Checkout(root, python, known or version(root))
    _assert_imported(found, environments)
    return found


def dependencies(root: Path) -> tuple[str, ...]:
    """What a folder of code needs installed, sorted."""
    path = root / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return tuple(sorted("".join(line.split()) for line in project.get("dependencies", [])))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: dependencies unreadable ({error})") from None


def environment(root: Path, cache: Path) -> dict[str, str]:
    """Variables for a process that runs a folder of code: that folder first on the path, one thread."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") and key != "PYTHONHOME"}
    return kept | {"PYTHONPATH": str(root), "ALERT_TWIN_CACHE": str(cache), "PYTHONUNBUFFERED": "1",
                   **dict.fromkeys((*THREAD_VARIABLES, "NUMEXPR_NUM_THREADS"), "1")}


def _top(root: Path) -> Path | None:
    """The repository of a folder of code; None where the code merely lies inside another's, as in site-packages."""
    try:
        found = git(root, "rev-parse", "--show-toplevel")
    except InputError:
        return None   # no git
    top = Path(found.stdout.strip() or "/nowhere")
    return root if found.returncode == 0 and top.resolve() == root.resolve() else None


def _assert_imported(code: Checkout, cache: Path) -> None:
    """InputError unless `twin` really comes from the folder: a process must not judge other code than it says."""
    command = [str(code.python), "-c", "import twin; print(*twin.__path__, sep='\\n')"]
    found = subprocess.run(command, cwd=code.root, env=environment(code.root, cache), capture_output=True, text=True,
                           check=False)
    paths = [Path(line).resolve() for line in found.stdout.splitlines()]
    if paths != [(code.root / "twin").resolve()]:
        raise InputError(f"{code.root}: its code is not what {code.python} imports, but "
                         f"{', '.join(map(str, paths)) or found.stderr.strip()[-200:] or 'nothing'}")


def _lend_kernels(root: Path) -> None:
    """Give a fresh worktree the present tree's compiled kernels where no kernel differs, which saves their compilation.

    Numba knows a kernel's file by its time and size, and does not see when another file that it calls has changed:
    hence all or none.
    """
    pairs = [(present() / package / "kernels", root / package / "kernels") for package in ("pipeline", "simulators")]
    if not all(_sources(mine) == _sources(its) for mine, its in pairs):
        return
    with suppress(OSError):   # then they compile
        for mine, its in pairs:
            for path in mine.glob("*.py"):
                facts = path.stat()
                os.utime(its / path.name, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            compiled = its / "__pycache__"
            compiled.mkdir(exist_ok=True)
            for path in (mine / "__pycache__").glob("*.nb[ic]"):
                shutil.copyfile(path, compiled / path.name)


def _sources(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}


def _environment(root: Path, needed: tuple[str, ...], place: Workspace, environments: Path,
                 say: Callable[[str], None]) -> Path:
    """The interpreter of a virtual environment with these dependencies, made once and kept."""
    key = hashlib.sha256("\n".join((sys.version, *needed)).encode()).hexdigest()[:16]
    folder = environments / "environments" / key
    python = folder / "bin" / "python"
    with _locked(folder.parent):
        if python.is_file():
            return python
        say("dependencies differ: making a virtual environment (once)")
        for left in folder.parent.glob(".making-*"):
            shutil.rmtree(left)
        aside = folder.parent / f".making-{key}"
        variables = environment(root, environments)
        commands = ((sys.executable, "-m", "venv", str(aside)),
                    (str(aside / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                     str(root)))
        try:
            for command in commands:
                place.run([Child("virtual environment", command, place.folder, variables)], 1)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return python


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
