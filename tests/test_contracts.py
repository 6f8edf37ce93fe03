"""The directions between packages, and what a command loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KERNELS = sorted(path for package in ("pipeline", "simulators") for path in (ROOT / package / "kernels").glob("*.py"))
ALLOWED = {"numpy", "numba", "math", "typing"}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").partition(".")[0])
    return names


def test_import_contracts_are_kept() -> None:
    found = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: f"{p.parent.parent.name}/{p.name}")
def test_kernels_see_numpy_and_numba_alone(path: Path) -> None:
    packages = {"pipeline", "simulators"}
    assert imported(path) - ALLOWED <= packages
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in packages:
            assert ".kernels" in (node.module or ""), f"{path} imports {node.module}"


def test_kernels_are_cached_on_disk() -> None:
    for path in KERNELS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                for decorator in node.decorator_list:
                    text = ast.unparse(decorator)
                    if "jit" in text or "vectorize" in text:
                        assert "cache=True" in text, f"{path}: {node.name} compiles in every process"


def test_the_twin_package_itself_is_empty() -> None:
    assert (ROOT / "twin" / "__init__.py").read_text().strip() == ""


def test_the_command_starts_without_simpy_and_galsim() -> None:
    code = "import sys, twin.cli; twin.cli._parser(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"simpy", "galsim", "simulators", "matplotlib", "numpy"} & set(found.stdout.split())
