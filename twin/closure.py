"""What of our own source a computation can import, and the versions of what else it rests on.

    fingerprint("twin.exposures") -> "5f0c..."   of every module of ours that it may come to import, data files included

Imports are read from the syntax tree, those inside functions too, and a package's `__init__` counts with its modules;
only what stands under `if TYPE_CHECKING:` does not. So nothing is imported to find out, and nothing depends on which
branch a computation takes.
"""

import ast
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("twin", "simulators", "pipeline", "schemas", "scenarios", "reports")
DISTRIBUTIONS: Final = {"yaml": ("PyYAML",), "erfa": ("pyerfa",), "confluent_kafka": ("confluent-kafka",),
                        "lsst": ("lsst-sdm-schemas", "lsst-alert-packet")}   # of modules named otherwise
BENEATH: Final = {"numba": ("llvmlite",), "astropy": ("pyerfa", "astropy-iers-data")}   # what those rest on
IMPORTERS: Final = (b"import_module", b"__import__", b"find_spec")   # functions that import by name
BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")  # of statements that hold others
SWITCHES: Final = ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "MKL_CBWR", "NUMBA_DISABLE_JIT", "NUMBA_CPU_NAME",
                   "NUMBA_CPU_FEATURES")   # of the environment: they choose how numbers are computed


@dataclass(frozen=True, slots=True)
class Source:
    """A module: what it says, and what it may import."""

    digest: str
    ours: frozenset[str]        # modules of ours, by dotted name; some may turn out to be names in their package
    others: frozenset[str]      # top-level names of everything else
    reads_data: bool            # it asks for files beside the modules
    any_of_ours: bool           # it imports by a name that is not written out


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything that some modules can import."""

    digests: Mapping[str, str]  # module or data file -> hash of its contents
    others: frozenset[str]      # top-level names outside our packages, the standard library's left out
    paths: tuple[Path, ...]

    @property
    def fingerprint(self) -> str:
        """A hash of all of our source in it."""
        return blake2b(repr(sorted(self.digests.items())).encode(), digest_size=16).hexdigest()

    def touched_since(self, moment: float) -> bool:
        """Whether a file was written, moved or lost after a moment: what is loaded may not be what is there."""
        try:
            return any(path.stat().st_ctime > moment for path in self.paths)
        except OSError:
            return True


@cache
def closure(*modules: str, root: Path = ROOT) -> Closure:
    """The closure of modules, which must exist, in the packages under `root`."""
    digests: dict[str, str] = {}
    others: set[str] = set()
    paths: list[Path] = []
    waiting = [name for module in modules for name in _with_packages(module)]
    missing = [name for name in modules if _file(name, root) is None]
    if missing:
        raise ValueError(f"no module {missing[0]} under {root}")
    asked: set[str] = set()
    while waiting:
        name = waiting.pop()
        path = _file(name, root) if name not in asked else None
        asked.add(name)
        if path is None:
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        source = _source(path.read_bytes(), package)
        digests[name] = source.digest
        paths.append(path)
        others |= source.others
        waiting += source.ours
        if source.any_of_ours:
            waiting += _all_modules(root)
        if source.reads_data:
            for file in _data_files(root / name.partition(".")[0]):
                digests[file.relative_to(root).as_posix()] = _digest(file.read_bytes())
                paths.append(file)
    return Closure(digests, frozenset(others - sys.stdlib_module_names), tuple(paths))


@cache
def libraries(others: frozenset[str]) -> dict[str, str]:
    """Versions of what is not ours, of Python and of the processor: by distribution."""
    names = {known for name in others for known in (*DISTRIBUTIONS.get(name, (name,)), *BENEATH.get(name, ()))}
    found = {name: _versions(name) for name in sorted(names)}
    return found | {"python": platform.python_version(), "implementation": sys.implementation.name,
                    "machine": processor(), **{name: os.environ.get(name, "") for name in SWITCHES}}


def _versions(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ", ".join(f"{d} {version(d)}" for d in sorted(set(packages_distributions().get(name, ())))) or "none"


def processor() -> str:
    """The processor's kind and the features that numerical libraries choose their code by."""
    flags = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return f"{platform.system()} {platform.machine()} {_digest(flags.encode())[:12]}"


def started() -> float:
    """When this process began [s of the Unix epoch]; where that is not told, when this module was loaded."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        return _LOADED


_LOADED: Final = time.time()


def _with_packages(module: str) -> Iterator[str]:
    """A module's name and those of the packages around it: importing it runs them all."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        yield ".".join(parts[:n])


@cache
def _file(module: str, root: Path) -> Path | None:
    base = os.path.join(root, *module.split("."))
    for path in (f"{base}.py", os.path.join(base, "__init__.py")):
        if os.path.isfile(path):
            return Path(path)
    return None


@cache
def _source(text: bytes, package: str) -> Source:
    names: set[str] = set()
    reads_data = b"__file__" in text
    any_of_ours = False
    tree = ast.parse(text)
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    if any(word in text for word in IMPORTERS):
        written = [_literal(node) for node in ast.walk(tree) if isinstance(node, ast.Call)
                   and _last(node.func).encode() in IMPORTERS]
        names |= {name for name in written if name}
        any_of_ours = "" in written
    reads_data |= any(name.startswith(("importlib.resources", "pkgutil")) for name in names)
    tops = {name.partition(".")[0] for name in names}
    ours = {part for name in names if name.partition(".")[0] in PACKAGES for part in _with_packages(name)}
    return Source(_digest(text), frozenset(ours), frozenset(tops - set(PACKAGES)), reads_data, any_of_ours)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Every statement, at whatever depth, but those under `if TYPE_CHECKING:`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if isinstance(node, ast.If) and _last(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        for block in BLOCKS:
            waiting += getattr(node, block, ())


def _literal(call: ast.Call) -> str:
    """The name that a call imports, "" where it is not written out."""
    name = call.args[0] if call.args else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""


def _last(node: ast.expr) -> str:
    """The last part of a name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    around = package.split(".")[:len(package.split(".")) - node.level + 1]
    return ".".join([*around, *([node.module] if node.module else [])])


def _all_modules(root: Path) -> list[str]:
    found = [path.relative_to(root).with_suffix("") for package in PACKAGES for path in (root / package).rglob("*.py")]
    return [".".join(path.parts).removesuffix(".__init__") for path in found]


def _data_files(package: Path) -> list[Path]:
    """Files of a package that are neither source nor made from it."""
    return sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
                  and path.suffix not in (".py", ".pyc", ".pyi") and path.name != "py.typed")


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


__all__ = ["Closure", "closure", "libraries", "processor", "started"]
