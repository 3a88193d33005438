"""The token file: what it may hold, and what becomes of changes."""

import logging
from pathlib import Path

import pytest

from shardrt.config.tokens import LOOK_S, Access, Tokens
from shardrt.errors import ConfigInvalid


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float = LOOK_S) -> None:
        self.now_s += seconds


def tokens_of(path: Path, text: str) -> tuple[Tokens, Clock]:
    path.write_text(text)
    clock = Clock()
    return Tokens(path=str(path), monotonic_s=clock), clock


def test_without_a_token_nobody_needs_one():
    tokens = Tokens()
    assert not tokens.required
    assert tokens.first is None
    assert tokens.access(b"") is tokens.access(b"any") is Access.FULL


def test_a_file_holds_several_tokens_of_two_kinds(tmp_path):
    text = "# of the dashboards\nread:seen\n\n  first \nread: also \nsecond\n#third\n"
    tokens, _ = tokens_of(tmp_path / "tokens", text)
    assert tokens.first == "first"
    assert tokens.access(b"first") is tokens.access(b"second") is Access.FULL
    assert tokens.access(b"seen") is tokens.access(b"also") is Access.READ
    for wrong in (b"", b"firs", b"first2", b"third", b"#third", b"read:seen", b"\xff"):
        assert tokens.access(wrong) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("# only this\n\n", "is empty"),
        ("read:a\n", "no token is without read:"),
        ("good\nread:\n", "line 2 is no token"),
        ("two words\n", "line 1 is no token"),
        ("schlüssel\n", "line 1 is no token"),
        ("bell\a\n", "line 1 is no token"),
        ("twice\nread:twice\n", "line 2 repeats a token"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_without_showing_it(tmp_path, text, problem):
    path = tmp_path / "tokens"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigInvalid) as refused:
        Tokens(path=str(path))
    assert problem in str(refused.value)
    assert "host.token_file" in str(refused.value)
    for word in ("words", "schl", "bell", "twice"):
        assert word not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigInvalid, match="No such file"):
        Tokens(path=str(tmp_path / "none"))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigInvalid, match="is not UTF-8"):
        Tokens(path=str(tmp_path / "latin"))


def test_changes_are_seen_once_a_second(tmp_path):
    path = tmp_path / "tokens"
    tokens, clock = tokens_of(path, "old\n")
    path.write_text("newer\nread:old\n")
    clock.pass_s(LOOK_S / 2)
    assert tokens.access(b"old") is Access.FULL
    clock.pass_s(LOOK_S / 2)
    assert tokens.access(b"old") is Access.READ
    assert tokens.access(b"newer") is Access.FULL
    assert (tokens.first, tokens.version) == ("newer", 1)


def test_a_file_that_is_put_in_its_place_is_seen(tmp_path):
    path, other = tmp_path / "tokens", tmp_path / "other"
    tokens, clock = tokens_of(path, "aaa")
    other.write_text("bbb")
    other.replace(path)
    clock.pass_s()
    assert tokens.first == "bbb"


@pytest.mark.parametrize("ruined", ["", "read:a", "bad line\n", None])
def test_a_file_that_was_ruined_leaves_what_was(tmp_path, caplog, ruined):
    path = tmp_path / "tokens"
    tokens, clock = tokens_of(path, "kept-token\n")
    path.unlink() if ruined is None else path.write_text(ruined)
    for _ in range(3):
        clock.pass_s()
        assert tokens.access(b"kept-token") is Access.FULL
        assert tokens.access(b"") is None
    assert tokens.version == 0
    assert len(caplog.messages) == 1
    assert "tokens stay as they were: host.token_file" in caplog.text
    path.write_text("repaired\n")
    clock.pass_s()
    assert tokens.first == "repaired"
    assert tokens.access(b"kept-token") is None


def test_tokens_are_in_no_log_line_and_no_repr(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "tokens"
    tokens, clock = tokens_of(path, "sesame-1\n")
    for text in ("sesame-2\nread:sesame-3\n", "sesame 4", "sesame-5\nsesame-5\n"):
        path.write_text(text)
        clock.pass_s()
        tokens.look()
    assert len(caplog.messages) == 3
    assert "sesame" not in caplog.text
    assert "sesame" not in repr(tokens)
