"""The FastAPI program of docs/embedding.md, served by uvicorn, killed and started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.serving import environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("fastapi")
pytestmark = [pytest.mark.proc, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"
BLOCK = re.compile(r"^```python no-run\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ORDERS = [{"id": str(number), "cents": 100 * number} for number in range(1, 6)]


@contextmanager
def served(directory: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    command = [sys.executable, "-m", "uvicorn", "orders:api", "--port", str(port)]
    variables = {"PYTHONPATH": os.pathsep.join([str(directory), str(PAGE.parents[1])])}
    with (directory / "log").open("ab") as log:
        env = environment({}) | variables
        process = subprocess.Popen(command, cwd=directory, env=env, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:

            def is_up() -> bool:
                assert process.poll() is None, (directory / "log").read_text()
                try:
                    return http.get("/durable/health/ready").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_up, within_s=40)
            yield process, http
    finally:
        process.kill()
        process.wait(20)


def status(http: httpx.Client, order: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = http.get(f"/orders/{order['id']}").json()
    return answer


def until_completed(http: httpx.Client, order: dict[str, Any]) -> None:
    wait_until(lambda: status(http, order)["status"] == "Completed", within_s=20)


def test_orders_survive_that_the_program_is_killed(tmp_path: Path) -> None:
    [program] = re.findall(
        r"```python no-run\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "orders.py").write_text(program)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(tmp_path, port) as (process, http):
        assert http.post("/orders", json=ORDERS[0]).status_code == 202
        assert http.post("/orders/batch", json=ORDERS).json() == {"ids": list("12345")}
        assert http.post("/orders", json={"id": "x"}).status_code == 422
        assert http.get("/orders/none").status_code == 404
        http.post("/orders/1/paid")
        until_completed(http, ORDERS[0])
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    with served(tmp_path, port) as (process, http):
        assert status(http, ORDERS[0])["result"] == "shipped 1 for 100"
        for order in ORDERS[1:]:
            assert status(http, order)["status"] == "Running"
            assert http.post(f"/orders/{order['id']}/paid").status_code == 202
        for order in ORDERS:
            until_completed(http, order)
        assert status(http, ORDERS[4])["result"] == "shipped 5 for 500"
        wait_until(lambda: http.get("/statistics").json() == {"Completed": 5}, within_s=20)
        assert http.get("/health").json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        process.wait(40)
