"""What `mypy --strict` says of user code: nothing of good code, and the right thing of bad.

Bad code is kept as a text, so that only this test sees it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = re.compile(r"# error: ([\w-]+)$")


def errors_in(path: Path, cache: Path) -> list[tuple[int, str]]:
    """Return line and code of each error."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    options = ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={cache}"]
    output, problem, _ = api.run([*options, str(path)])
    assert not problem
    lines = re.findall(
        rf"{re.escape(path.name)}:(\d+): error: .* \[([\w-]+)\]$", output, re.MULTILINE
    )
    assert len(lines) == output.count(": error: "), output
    return list(dict.fromkeys((int(number), code) for number, code in lines))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_strict_checker_accepts_good_code_and_refuses_bad(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert errors_in(HERE / "good.py", cache) == []
    source = (HERE / "bad.txt").read_text(encoding="utf-8")
    marked = [(number, MARK.search(line)) for number, line in enumerate(source.splitlines(), 1)]
    expected = [(number, mark[1]) for number, mark in marked if mark]
    bad = tmp_path / "bad.py"
    bad.write_text(source, encoding="utf-8")
    assert errors_in(bad, cache) == expected
