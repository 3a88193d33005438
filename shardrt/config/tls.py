"""Certificates: what a host shows to those who come, and whom those who go trust."""

from __future__ import annotations

import ssl
from pathlib import Path

from shardrt.errors import ConfigInvalid


def check_server(cert: str, key: str) -> None:
    """Check that a host can serve with these.

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
