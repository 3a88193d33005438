"""What makes a run worthless."""


class RunFailed(Exception):
    """A run that says nothing; the text is for users."""


class WrongAnswer(RunFailed):
    """An instance returned something else than it should have."""


class HostFailed(RunFailed):
    """The host under test did not start, or ended; the text holds what it said last."""


def check(found: object, expected: object, of: str) -> None:
    """Raise `WrongAnswer` unless an answer is the expected one."""
    if found != expected:
        raise WrongAnswer(f"{of} is {_short(found)} instead of {_short(expected)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
