"""The tokens that clients and other hosts must present, looked at again when their file changes.

A line of the file is a token; ``read:`` before it makes it one that may only look. Empty lines
and lines that begin with ``#`` are left out. The first token without a prefix is the one that a
host presents to others. Tokens are never part of a message, log line or `repr`.
"""

from __future__ import annotations

import hmac
import logging
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from shardrt.config.files import stamp_of
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""The file is looked at so often at most."""
READ_PREFIX = "read:"


class Access(Enum):
    """What somebody who has presented a token may do."""

    READ = "read"
    """Look, and change nothing."""
    FULL = "full"


class Tokens:
    """The tokens of a host. Without any, nobody need present one.

    Invariant: once there was a token, there always is one. A file that has become unreadable,
    empty or wrong leaves the tokens as they were.

    Args:
        token: the only one, if there is no file.
        path: of the file.

    Raises:
        ConfigInvalid: the file cannot be read, or holds no token, or something else.
    """

    def __init__(
        self, token: str = "", path: str = "", *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.version = 0
        """Grows when the tokens change, so that who was let in can be looked at again."""
        self._path = path
        self._monotonic_s = monotonic_s
        self._tokens = {token.encode(): Access.FULL} if token else {}
        self._stamp: tuple[int, ...] | None = None
        self._looked_s = monotonic_s()
        if path:
            self._stamp = stamp_of(path)
            self._tokens = _read(path)

    @property
    def required(self) -> bool:
        return bool(self._tokens)

    @property
    def first(self) -> str | None:
        """What this host presents to others."""
        self.look()
        full = (token for token, access in self._tokens.items() if access is Access.FULL)
        return next((token.decode() for token in full), None)

    def access(self, given: bytes) -> Access | None:
        """Return what that token allows; None: nothing. Takes the same time for any that fails."""
        self.look()
        if not self._tokens:
            return Access.FULL
        allowed = None
        for token, access in self._tokens.items():  # all of them, whichever it is
            if hmac.compare_digest(given, token):
                allowed = access
        return allowed

    def look(self) -> None:
        """Read the file anew if it has changed, and not too often."""
        now_s = self._monotonic_s()
        if not self._path or now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # of before it is read: a change meanwhile is seen at the next look
        try:
            tokens = _read(self._path)
        except ConfigInvalid as error:
            logger.warning("tokens stay as they were: %s", error)
            return
        if tokens != self._tokens:
            self._tokens = tokens
            self.version += 1
            logger.info("tokens were read anew: %d", len(tokens))


def _read(path: str) -> dict[bytes, Access]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigInvalid(f"host.token_file: {path} is not UTF-8") from None
    except OSError as error:
        raise ConfigInvalid(f"host.token_file: {error.strerror}: {path}") from None
    tokens: dict[bytes, Access] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        access = Access.READ if word.startswith(READ_PREFIX) else Access.FULL
        token = word.removeprefix(READ_PREFIX).strip()
        if not token or " " in token or not (token.isascii() and token.isprintable()):
            raise ConfigInvalid(f"host.token_file: {path}: line {number} is no token")
        if token.encode() in tokens:
            raise ConfigInvalid(f"host.token_file: {path}: line {number} repeats a token")
        tokens[token.encode()] = access
    if not tokens:
        raise ConfigInvalid(f"host.token_file: {path} is empty")
    if Access.FULL not in tokens.values():
        raise ConfigInvalid(f"host.token_file: {path}: no token is without {READ_PREFIX}")
    return tokens
