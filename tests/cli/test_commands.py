"""Client commands, against a fake host."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from shardrt.cli import main
from shardrt.cli.cluster import _cell
from shardrt.core.history import Failure, Status
from tests.fake_host import HostThread


@pytest.fixture(scope="module")
def host() -> Iterator[HostThread]:
    with HostThread() as thread:
        yield thread


@pytest.fixture(autouse=True)
def _empty(host: HostThread) -> None:
    host.do(lambda fake: fake.shard.instances.clear())


def run(host: HostThread, *arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, arguments, env={"SHARDRT_URL": host.url}, **options)


def ask(host: HostThread, *arguments: str) -> Any:
    done = run(host, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def end(host: HostThread, instance_id: str, *args: Any, **kwargs: Any) -> None:
    host.do(lambda fake: fake.shard.end(instance_id, *args, **kwargs))


def last_request(host: HostThread) -> Any:
    return host.do(lambda fake: fake.shard.received[-1].request)


def test_starting_and_looking(host: HostThread, tmp_path: Path) -> None:
    assert len(run(host, "start", "hello").stdout.strip()) == 32
    (tmp_path / "in.json").write_text('{"a": "é"}')
    done = run(host, "start", "hello", "--id", "x", "--input", f"@{tmp_path / 'in.json'}")
    assert (done.exit_code, done.stdout) == (0, "x\n")
    assert ask(host, "start", "hello", "--id", "y", "--tag", "k=v") == {"instanceId": "y"}
    found = ask(host, "get", "x")
    assert (found["runtimeStatus"], found["input"]) == ("Running", {"a": "é"})
    assert ask(host, "get", "y")["tags"] == {"k": "v"}
    assert len(ask(host, "get", "x", "--history")["historyEvents"]) == 5
    shown = run(host, "get", "x", "--history").stdout
    assert "Running" in shown
    assert "TaskScheduled" in shown
    done = run(host, "start", "hello", "--id", "z", "--input", "-", input='"piped"')
    assert ask(host, "get", "z")["input"] == "piped"


def test_waiting(host: HostThread) -> None:
    run(host, "start", "hello", "--id", "x")
    end(host, "x", output=b'{"n":[1]}')
    assert json.loads(run(host, "wait", "x").stdout) == {"n": [1]}
    assert ask(host, "wait", "x")["output"] == {"n": [1]}
    done = run(host, "start", "hello", "--id", "x", "--on-conflict", "return", "--wait")
    assert json.loads(done.stdout) == {"n": [1]}
    run(host, "start", "hello", "--id", "f")
    end(host, "f", Status.FAILED, failure=Failure(type="ValueError", message="bad\nluck"))
    done = run(host, "wait", "f")
    assert done.exit_code == 1
    assert done.stderr == "shardrt: instance 'f' is Failed: ValueError: bad luck\n"
    done = run(host, "wait", "f", "--json")
    assert (done.exit_code, json.loads(done.stdout)["runtimeStatus"]) == (1, "Failed")
    run(host, "start", "hello", "--id", "open")
    done = run(host, "wait", "open", "--timeout", "0.01")
    assert done.exit_code == 1
    said = "shardrt: instance 'open' has not ended within 0.01 s; open is Running: event 'approval'"
    assert done.stderr == said + "\n"


def test_listing_what_is_parked(host: HostThread) -> None:
    for each in ("fits", "waits", "done"):
        run(host, "start", "hello", "--id", each)
    end(host, "done", reason="over")
    snapshots = host.do(lambda fake: fake.shard.instances)
    parked = msgspec.structs.replace(snapshots["waits"], reason="no such code")
    host.do(lambda fake: fake.shard.instances.update(waits=parked))
    assert [each["instanceId"] for each in ask(host, "list", "--parked")] == ["waits"]
    assert "no such code" in run(host, "list", "--parked").stdout
    assert run(host, "list", "--parked", "--status", "running").exit_code == 2


def test_listing(host: HostThread) -> None:
    done = run(host, "list")
    assert (done.stdout, "no instances" in done.stderr) == ("", True)
    for i in range(3):
        run(host, "start", "hello", "--id", f"i{i}")
    assert [each["instanceId"] for each in ask(host, "list", "--status", "running")] == [
        "i0",
        "i1",
        "i2",
    ]
    assert len(ask(host, "list", "--limit", "2", "--created-from", "1970-01-01")) == 2
    shown = run(host, "list").stdout
    assert "INSTANCE" in shown
    assert "1970-01-01T00:00:01Z" in shown


def test_exporting(host: HostThread, tmp_path: Path) -> None:
    for i in ("a/b", "c"):
        run(host, "start", "hello", "--id", i)
    out = tmp_path / "new" / "place"
    done = run(host, "export", "c", "a/b", "--out", str(out))
    assert done.stdout.split() == [str(out / "c.json"), str(out / "a%2Fb.json")]
    assert json.loads((out / "a%2Fb.json").read_text()) == {"instance_id": "a/b"}
    end(host, "c")
    wanted = ("--status", "completed", "--limit", "1")
    assert ask(host, "export", *wanted, "--out", str(tmp_path)) == {
        "files": [str(tmp_path / "c.json")]
    }
    host.do(lambda fake: fake.shard.instances.clear())
    assert run(host, "export", "--name", "hello").stdout == "no instances\n"
    done = run(host, "export", "nobody", "--out", str(tmp_path))
    assert (done.exit_code, done.stderr) == (1, "shardrt: no instance 'nobody'\n")
    (tmp_path / "file").touch()
    run(host, "start", "hello", "--id", "c")
    done = run(host, "export", "c", "--out", str(tmp_path / "file" / "below"))
    assert (done.exit_code, "cannot write" in done.stderr) == (1, True)
    assert run(host, "export").exit_code == run(host, "export", "c", "--name", "x").exit_code == 2


def test_steering(host: HostThread) -> None:
    run(host, "start", "hello", "--id", "x")
    assert "accepted" in run(host, "raise-event", "x", "go", "--data", "[1]").stdout
    assert bytes(last_request(host).data) == b"[1]"
    assert "terminated" in run(host, "terminate", "x", "--reason", "why").stdout
    assert last_request(host).reason == "why"
    assert "told to cancel" in run(host, "cancel", "x", "--reason", "gently").stdout
    assert last_request(host).reason == "gently"
    for command in ("cancel", "suspend", "resume", "rewind", "restart"):
        assert ask(host, command, "x") == {"instanceId": "x"}
        assert type(last_request(host)).__name__.lower() == command


def test_purging(host: HostThread) -> None:
    for i in range(4):
        run(host, "start", "hello", "--id", f"i{i}")
    end(host, "i0")
    end(host, "i1")
    assert run(host, "purge", "i0").stdout == "1 deleted\n"
    assert ask(host, "purge", "--status", "completed", "--older-than", "7d") == {
        "instancesDeleted": 1
    }
    for wrong in ((), ("i2", "--status", "Failed"), ("--older-than", "a while")):
        assert run(host, "purge", *wrong).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("get", "nobody"), 1, "no instance 'nobody'"),
        (("wait", "nobody"), 1, "no instance 'nobody'"),
        (("purge", "nobody"), 1, "no instance 'nobody'"),
        (("start", "unknown"), 1, "no orchestrator 'unknown'"),
        (("start", "hello", "--input", "{"), 2, "not JSON"),
        (("start", "hello", "--input", "@/no/such"), 2, "cannot read /no/such"),
        (("start", "hello", "--tag", "novalue"), 2, "KEY=VALUE"),
        (("start", "hello", "--id", ""), 1, "not an instance id"),
        (("start",), 2, "NAME"),
        (("list", "--status", "asleep"), 2, "give one of"),
        (("list", "--url", "nonsense"), 2, "not the URL of a host"),
        (("list", "--url", "http://127.0.0.1:9,nonsense"), 2, "not the URL of a host"),
        (("list", "--url", "http://127.0.0.1:9"), 1, "shardrt serve"),
        (("frobnicate",), 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done(
    host: HostThread, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = run(host, *arguments)
    assert done.exit_code == code
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.splitlines()) == 1


def test_the_cluster(host: HostThread) -> None:
    view = {
        "host_id": "h1",
        "lease": "held",
        "hosts": [{"host_id": "h1", "live": True, "expires_in_s": 9.5}],
        "partitions": [{"partition": 0, "owner": None, "epoch": 3}],
        "children": [{"name": "shard-0", "partitions": [0, 1], "counters": {"a": 1.0}}],
    }
    host.do(lambda fake: setattr(fake.gateway, "_ask_supervisor", lambda _, told: told(view)))
    assert ask(host, "cluster") == view
    shown = run(host, "cluster").stdout
    for text in ("lease: held", "h1", "9.5", "0 1"):
        assert text in shown
    assert "COUNTERS" not in shown
    assert _cell(None) == "-"


def test_a_failure_is_told_with_its_causes_the_deepest_last(host: HostThread) -> None:
    cause = Failure(
        type="ValueError", message="no money", details='Traceback …\n  File "flows.py"\n'
    )
    ask(host, "start", "flow", "--id", "f-1")
    end(
        host,
        "f-1",
        Status.FAILED,
        failure=Failure(type="ActivityFailed", message="charge", cause=cause),
    )
    shown = run(host, "get", "f-1")
    assert shown.exit_code == 0, shown.output
    lines = [line.strip() for line in shown.output.splitlines()]
    assert lines[-5:] == [
        "failure          ActivityFailed", "charge",
        "caused by        ValueError", "Traceback …", 'File "flows.py"',
    ]  # fmt: skip
    assert all(line == line.rstrip() for line in shown.output.splitlines())


@pytest.mark.parametrize(
    ("given", "meant"), [("lst", "list"), ("show", "get ID"), ("xyzzy", "--help")]
)
def test_an_unknown_command_leads_to_one_that_there_is(given: str, meant: str) -> None:
    refused = CliRunner().invoke(main, [given])
    assert refused.exit_code == 2
    assert f"did you mean `shardrt {meant}`?" in refused.output


def test_help_needs_no_extra() -> None:
    program = """
import sys
sys.modules["hdrh"] = None  # as if it were not installed
from shardrt.cli import main
main(sys.argv[1:])
"""

    def shardrt(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "pip install 'shardrt[bench]'" in shardrt("--help").stdout
    refused = shardrt("bench", "hello", "--serve")
    assert refused.returncode == 2
    assert refused.stderr == "shardrt: hdrh is not installed: pip install 'shardrt[bench]'\n"


def test_help_names_all_commands() -> None:
    shown = CliRunner().invoke(main, ["--help"]).stdout
    for command in ("serve", "start", "get", "wait", "list", "raise-event", "purge", "cluster"):
        assert f"\n  {command} " in shown


def test_starting_up_imports_little() -> None:
    code = (
        "import sys; from shardrt.cli import main; import shardrt.cli.commands;"
        "heavy = {'rich', 'uvicorn', 'starlette', 'psycopg', 'websockets'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_hosts_are_tried_in_turn(host: HostThread) -> None:
    urls = f"http://127.0.0.1:9,{host.url}"
    for options, env in ((("--url", urls), {}), ((), {"SHARDRT_URL": urls})):
        done = CliRunner().invoke(main, ["list", "--json", *options], env=env)
        assert (done.exit_code, done.stdout) == (0, "[]\n")
