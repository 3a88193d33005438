"""Hosts that serve https, by an authority that exists for the test alone."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.client import Client
from shardrt.config import HostSettings, Settings, tls
from shardrt.errors import ConfigInvalid, ConnectionLost, Untrusted
from tests.loops import in_loop
from tests.serving import Served, cli
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

trustme = pytest.importorskip("trustme")

app = App()


@app.orchestrator
async def double(ctx: OrchestrationContext, number: int) -> int:
    return 2 * number


class Files(NamedTuple):
    """An authority, what it has signed, and an authority that has nothing to do with it."""

    ca: str
    cert: str
    key: str
    other_ca: str

    def settings(self) -> dict[str, object]:
        return {"host.tls_cert": self.cert, "host.tls_key": self.key, "host.tls_ca": self.ca}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1", "localhost")
    made = Files(*(str(directory / f"{name}.pem") for name in ("ca", "cert", "key", "other")))
    ca.cert_pem.write_to_path(made.ca)
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(made.cert, append=number > 0)
    issued.private_key_pem.write_to_path(made.key)
    trustme.CA().cert_pem.write_to_path(made.other_ca)
    return made


@in_loop
async def test_https_and_links_over_it(files: Files) -> None:
    async with Runtime(app, partitions=2, listen="127.0.0.1:0", settings=files.settings()) as rt:
        assert rt.address is not None
        assert rt.address.startswith("https://127.0.0.1:")
        async with await Client.connect(rt.address, ca_file=files.ca) as client:
            handle = await client.start(double, 4, instance_id="x")
            assert await handle.result() == 8
        context = ssl.create_default_context(cafile=files.ca)
        async with httpx.AsyncClient(base_url=rt.address, verify=context) as http:
            assert (await http.get("/health/ready")).status_code == 200
            body = {"input": 1, "instanceId": "y"}
            started = await http.post("/runtime/orchestrations/start/double", json=body)
            assert started.headers["location"].startswith(rt.address)


@in_loop
async def test_whom_nobody_vouches_for_is_not_talked_to(files: Files) -> None:
    async with Runtime(app, partitions=2, listen="127.0.0.1:0", settings=files.settings()) as rt:
        assert rt.address is not None
        for ca_file in (files.other_ca, None):
            with pytest.raises(Untrusted, match=f"{rt.address} is not trusted: .*certificate"):
                await Client.connect(rt.address, ca_file=ca_file, connect_timeout_s=30)
        elsewhere = rt.address.replace("127.0.0.1", "[::ffff:127.0.0.1]")
        with pytest.raises((Untrusted, ConnectionLost)):
            await Client.connect(elsewhere, ca_file=files.ca)
        with pytest.raises(ConnectionLost):
            await Client.connect(rt.address.replace("https", "http"))
        with pytest.raises(ConfigInvalid, match="No such file"):
            await Client.connect(rt.address, ca_file="/nowhere.pem")


@in_loop
async def test_who_speaks_no_tls_is_told_apart() -> None:
    async with Runtime(app, partitions=2, listen="127.0.0.1:0") as rt:
        assert rt.address is not None
        with pytest.raises(ConnectionLost):
            await Client.connect(rt.address.replace("http", "https"))


def test_files_that_make_no_sense_are_named(files: Files, tmp_path: Path) -> None:
    other = trustme.CA().issue_cert("127.0.0.1")
    other_key, none = str(tmp_path / "other.pem"), str(tmp_path / "none.pem")
    other.private_key_pem.write_to_path(other_key)
    for host, problem in (
        (HostSettings(tls_cert=none, tls_key=files.key), f"host.tls_cert: No such file.*{none}"),
        (HostSettings(tls_cert=files.cert, tls_key=none), f"host.tls_key: No such file.*{none}"),
        (HostSettings(tls_cert=files.cert, tls_key=other_key), f"{files.cert} and {other_key} are"),
        (HostSettings(tls_cert=files.key, tls_key=files.key), f"{files.key} and {files.key} are"),
        (HostSettings(tls_ca=none), none),
        (HostSettings(tls_ca=files.key), f"{files.key}: no certificates"),
    ):
        with pytest.raises(ConfigInvalid, match=problem):
            Settings(host=host).check_files()
    with pytest.raises(ConfigInvalid, match="give tls_cert and tls_key, or neither"):
        Settings(host=HostSettings(tls_cert=files.cert))


def shown(port: int) -> bytes:
    """The certificate that a server shows."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=10))


@in_loop
async def test_a_renewed_certificate_is_shown_without_a_restart(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_S", 0.0)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(files.cert, cert)
    shutil.copy(files.key, key)
    settings = {"host.tls_cert": str(cert), "host.tls_key": str(key), "host.tls_ca": files.ca}
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = ca.issue_cert("127.0.0.1")
    async with Runtime(app, partitions=2, listen="127.0.0.1:0", settings=settings) as rt:
        port = int(rt.address.rpartition(":")[2])
        before = await asyncio.to_thread(shown, port)
        async with await Client.connect(rt.address, ca_file=files.ca) as stays:
            issued.cert_chain_pems[0].write_to_path(str(cert))
            assert await asyncio.to_thread(shown, port) == before
            assert "the certificate stays as it was" in caplog.text
            issued.private_key_pem.write_to_path(str(key))
            assert await asyncio.to_thread(shown, port) == ssl.PEM_cert_to_DER_cert(
                issued.cert_chain_pems[0].bytes().decode()
            )
            handle = await stays.start(double, 1)
            assert await handle.result() == 2
        with pytest.raises(Untrusted):
            await Client.connect(rt.address, ca_file=files.ca)
        async with await Client.connect(rt.address, ca_file=str(tmp_path / "ca.pem")) as client:
            assert await client.get("none") is None


@pytest.mark.proc
@pytest.mark.slow
@in_loop
async def test_hosts_reach_each_other_over_tls(files: Files, hub_dsn: str) -> None:
    settings = files.settings() | {"store.unsafe": True}
    async with (
        Runtime(app, store=hub_dsn, partitions=4, listen="127.0.0.1:0", settings=settings) as one,
        Runtime(app, store=hub_dsn, partitions=4, listen="127.0.0.1:0", settings=settings) as two,
    ):
        await eventually(lambda: 0 < len(one.host.membership.serving()) < 4, within_s=40)
        for number in range(8):
            for runtime in (one, two):
                handle = await runtime.client.start(double, number)
                assert await handle.result(timeout=30) == 2 * number


@pytest.mark.proc
@pytest.mark.slow
def test_a_served_host_and_the_command_line(files: Files, tmp_path: Path) -> None:
    options = ["--shards", "1", "--tls-cert", files.cert, "--tls-key", files.key]
    with Served(f"sqlite:///{tmp_path}/hub.db", tmp_path, *options) as served:
        assert served.url.startswith("https://")
        trusted = cli("start", "hello", "--url", served.url, "--ca-file", files.ca)
        assert trusted.returncode == 0, trusted.stderr
        wrong = cli("start", "hello", SHARDRT_URL=served.url, SHARDRT_CA_FILE=files.other_ca)
        assert wrong.returncode == 1
        assert wrong.stderr.count("\n") == 1
        assert "is not trusted" in wrong.stderr
