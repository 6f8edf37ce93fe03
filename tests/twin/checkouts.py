"""A stand-in for the project in a git repository of its own: its `run` copies a recorded night."""

from pathlib import Path

from twin.checkout import PACKAGES
from twin.workspace import git

RUN = '''
import itertools, pathlib, shutil, sys, time
words = sys.argv[1:]
after = lambda name: itertools.takewhile(lambda word: not word.startswith("--"), words[words.index(name) + 1:])
settings = pathlib.Path(words[1]).read_text()
if "broken" in settings:
    sys.exit("alert-twin: settings: broken is no setting")
several = "--seeds" in words
for seed in after("--seeds" if several else "--seed"):
    out = pathlib.Path(*after("--out")) / (f"seed_{seed}" if several else "")
    if "slow" in settings:
        out.mkdir(parents=True)
        time.sleep(60)
    shutil.copytree(NIGHT, out)
    (out / "said").write_text(f"{NAME} {pathlib.Path(__file__).parents[1]} {seed}\\n{settings}")
'''


def make(folder: Path, night: Path, name: str = "first", *, several: bool = False) -> str:
    """Write the stand-in into a folder and commit it; the commit. `several`: it runs many nights in one process."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True)
        for words in ("init --quiet -b trunk", "config user.name a", "config user.email a@b"):
            assert git(folder, *words.split()).returncode == 0
    for package in PACKAGES:
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "__init__.py").touch()
    for package in ("pipeline", "simulators"):
        (folder / package / "kernels").mkdir(exist_ok=True)
        (folder / package / "kernels" / "__init__.py").touch()
    if several:
        (folder / "twin" / "nights.py").touch()
    (folder / ".gitignore").write_text("__pycache__/\n")
    (folder / "twin" / "cli.py").write_text(f"NIGHT, NAME = {str(night)!r}, {name!r}\n{RUN}")
    (folder / "pyproject.toml").write_text('[project]\nname = "stand-in"\ndependencies = ["numpy>=2.0"]\n')
    git(folder, "add", "--all")
    assert git(folder, "commit", "--quiet", "-m", name).returncode == 0
    return git(folder, "rev-parse", "HEAD").stdout.strip()
