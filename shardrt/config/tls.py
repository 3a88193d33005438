"""Certificates: what a host shows to those who come, and whom those who go trust."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shardrt.config.files import stamp_of
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""The files are looked at so often at most."""


class Certificate:
    """What a host shows, looked at again when its files change.

    Files that no longer belong together leave it as it was: they are replaced one after the other.

    Args:
        cert, key: paths that were good at the start.
    """

    def __init__(
        self, cert: str, key: str, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cert = cert
        self._key = key
        self._monotonic_s = monotonic_s
        self._stamps = self._stamp()
        self._looked_s = monotonic_s()
        self._renewed: ssl.SSLContext | None = None
        """Holds what was read last; None: what the server was made with."""

    def show(self, context: ssl.SSLContext) -> None:
        """Have who comes to a server with this context shown what the files hold then."""
        context.sni_callback = self._on_hello

    def _on_hello(
        self,
        connection: ssl.SSLSocket | ssl.SSLObject,
        _name: str | None,
        _context: ssl.SSLContext,
    ) -> None:
        self._look()
        if self._renewed is not None:
            connection.context = self._renewed

    def _look(self) -> None:
        now_s = self._monotonic_s()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        stamps = self._stamp()
        if stamps == self._stamps:
            return
        self._stamps = stamps  # of before they are read: a change meanwhile is seen next time
        try:
            self._renewed = server_context(self._cert, self._key)
        except ConfigInvalid as error:
            logger.warning("the certificate stays as it was: %s", error)
        else:
            logger.info("the certificate was read anew")

    def _stamp(self) -> tuple[object, object]:
        return stamp_of(self._cert), stamp_of(self._key)


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """Return how a host serves with these.

    Raises:
        ConfigInvalid: a file is absent, is no PEM, or they do not belong together.
    """
    for name, path in (("host.tls_cert", cert), ("host.tls_key", key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ConfigInvalid(f"{name}: {error.strerror}: {path}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        why = error.reason or "not PEM, or the key has a password"
        text = f"host.tls_cert, host.tls_key: {cert} and {key} are no certificate and its key"
        raise ConfigInvalid(f"{text}: {why}") from None
    return context


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """Return how to check whom we reach: by the system's authorities, or by those in a file.

    Raises:
        ConfigInvalid: the file cannot be read, or has no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise ConfigInvalid(f"{ca_file}: no certificates in PEM") from None
    except OSError as error:
        raise ConfigInvalid(f"{error.strerror}: {ca_file}") from None
