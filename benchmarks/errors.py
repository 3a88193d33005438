"""What makes a run worthless."""


class WrongAnswer(Exception):
    """An instance returned something else than it should have."""


class HostFailed(Exception):
    """The host under test did not start, or ended; the text holds what it said last."""
