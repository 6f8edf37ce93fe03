import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from twin import checkout
from twin.bisect import Range, bisect, commits_between, first_bad
from twin.compare import Question
from twin.scenario import dump
from twin.workspace import git

from .conftest import SMALL


@given(st.integers(2, 60), st.data())
def test_the_first_bad_commit_is_found_in_few_questions(n: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, n - 1))
    asked: list[int] = []

    def bad(i: int) -> bool:
        asked.append(i)
        return i >= first

    assert first_bad(n, bad) == (first - 1, first)
    assert len(asked) <= (n - 1).bit_length() + 1
    assert len(set(asked)) == len(asked)


@given(st.integers(2, 40), st.data())
def test_undecided_commits_widen_the_answer_and_never_make_it_wrong(n: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, n - 1))
    dark = data.draw(st.sets(st.integers(1, n - 2))) if n > 2 else set()
    good, bad = first_bad(n, lambda i: None if i in dark else i >= first)
    assert good < first <= bad
    assert set(range(good + 1, bad)) <= dark


def test_a_range_is_said_to_be_one() -> None:
    assert str(Range("aaaaaaa", "bbbbbbb", ())) == "bbbbbbb is the first worse commit"
    assert str(Range("a", "b", ("c",))) == "between a and b: 1 commits stay undecided (c)"


@pytest.mark.parametrize(("good", "bad", "metric", "message"), [
    ("HEAD", "HEAD", "false_raw", "are the same commit"),
    ("HEAD", "HEAD~1", "false_raw", "is no ancestor of .*: give the earlier commit first"),
    ("nonesuch", "HEAD", "false_raw", "unknown revision 'nonesuch'"),
    ("HEAD~1", "HEAD", "nonesuch", "--metric 'nonesuch': no such metric"),
])
def test_what_cannot_be_searched_is_said_in_a_line(good: str, bad: str, metric: str, message: str) -> None:
    if git(checkout.present(), "rev-parse", "--verify", "--quiet", "HEAD~1").returncode:
        pytest.skip("the history is not here: a shallow clone or no git")
    with pytest.raises(InputError, match=message):
        bisect(good, bad, metric, Question(good, bad), print)


def test_commits_between_are_those_after_the_good_one() -> None:
    if git(checkout.present(), "rev-parse", "--verify", "--quiet", "HEAD~3").returncode:
        pytest.skip("the history is not here: a shallow clone or no git")
    last, first = (checkout.resolve(name, checkout.present()) for name in ("HEAD", "HEAD~3"))
    found = commits_between(first, last)
    assert found[-1] == last
    assert first not in found
    assert len(found) >= 1


@pytest.mark.accept
def test_a_planted_commit_is_found_in_a_repository(tmp_path: Path) -> None:
    """Six commits on top of the present code; the fourth detects above 6 sigma."""
    clone = tmp_path / "clone"
    assert git(checkout.present(), "clone", "--quiet", "--local", ".", str(clone)).returncode == 0
    checkout._lend_kernels(clone)      # compiling them takes longer than the search
    path, sigma = clone / "pipeline" / "pixel_config.py", "    threshold: float = 5.0"
    assert path.read_text().count(sigma) == 1
    commits = [git(clone, "rev-parse", "HEAD").stdout.strip()]
    for number in range(1, 7):
        with (clone / "pipeline" / "associate.py").open("a") as file:
            file.write(f"# change {number}\n")
        if number == 4:
            path.write_text(path.read_text().replace(sigma, "    threshold: float = 6.0"))
        words = ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "-m", f"change {number}")
        assert git(clone, *words).returncode == 0
        commits.append(git(clone, "rev-parse", "HEAD").stdout.strip())
    simulation = {**SMALL["simulation"], "camera": {"ny": 400, "nx": 400},      # type: ignore[dict-item]
                  "cadence": {"blocks": ["rr"], "pairs": 2, "history_per_band": 2, "dither_arcsec": 5.0},
                  "sky": {"stars": {"density": 30.0},
                          "transients": {"per_field": 400.0, "flux": "snr_log", "snr": [5.0, 9.0]}}}
    (tmp_path / "scenario.toml").write_text(dump(SMALL | {"simulation": simulation}))   # not what is default
    command = [sys.executable, "-m", "twin.cli", "bisect", commits[0], commits[-1], "--metric",
               "completeness_raw_5.5_8", "--scenario", str(tmp_path / "scenario.toml"), "--seeds", "1-4"]
    found = subprocess.run(command, cwd=clone, env=checkout.environment(clone, tmp_path / "cache"),
                           capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == f"{commits[4][:7]} is the first worse commit"
    asked = [line.split(":")[0] for line in found.stderr.splitlines() if ", " in line]
    assert len(asked) <= 4
