"""Settings: precedence, complete error reports, hidden secrets, round trips."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from shardrt.config import (
    ENV_ALIASES,
    HostSettings,
    HubSettings,
    LimitSettings,
    Settings,
    ShardSettings,
    StoreSettings,
    load,
    mask_dsn,
)
from shardrt.config.settings import key_types, section_types
from shardrt.errors import ConfigInvalid

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def problems_of(**arguments) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        load(**arguments)
    return caught.value.problems


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str) -> Path:
        path = tmp_path / "host.toml"
        path.write_text(text)
        return path

    return write_file


def test_without_any_source_there_are_the_defaults():
    assert load() == Settings()


def test_each_source_overrules_the_one_before(write):
    path = write("[host]\nport = 1\nshards = 1\ngateways = 1\n[shard]\nwatchdog_s = 7\n")
    environ = {"SHARDRT_HOST_PORT": "2", "SHARDRT_HOST_SHARDS": "2"}
    settings = load(path, environ=environ, overrides={"host.port": 3, "host.gateways": None})
    assert (settings.host.port, settings.host.shards, settings.host.gateways) == (3, 2, 1)
    assert settings.shard.watchdog_s == 7.0


def test_every_setting_can_come_from_the_environment():
    defaults = Settings(host=HostSettings(shards=3, open_access=True))
    for key in key_types():
        section, _, name = key.partition(".")
        value = getattr(getattr(defaults, section), name)
        variable = f"SHARDRT_{section}_{name}".upper()
        if key in {"host.token", "host.token_file", "host.host_id"}:
            value = "something"
        elif value is None:
            value = 5.0
        assert getattr(getattr(load(environ={variable: str(value)}), section), name) == value


def test_short_names_in_the_environment():
    environ = {
        "SHARDRT_STORE": "memory://",
        "SHARDRT_SHARDS": "3",
        "SHARDRT_HOST_ID": "alpha",
        "SHARDRT_HOST": "localhost",
        "SHARDRT_PARTITIONS": "64",
    }
    assert load(environ=environ) == Settings(
        store=StoreSettings(url="memory://"),
        hub=HubSettings(partitions=64),
        host=HostSettings(shards=3, host_id="alpha", bind="localhost"),
    )


def test_a_long_name_in_the_environment_beats_the_short_one():
    assert load(environ={"SHARDRT_HOST_PORT": "2", "SHARDRT_PORT": "1"}).host.port == 2


def test_every_short_name_means_a_setting_that_exists():
    assert set(ENV_ALIASES.values()) <= set(key_types())


def test_variables_that_name_no_section_are_not_ours():
    environ = {
        "SHARDRT_URL": "http://x",
        "SHARDRT_TEST_DSN": "x",
        "HOST_PORT": "x",
        "host_port": "x",
    }
    assert load(environ=environ) == Settings()


def test_all_problems_are_reported_at_once_with_key_reason_and_source(write):
    path = write("""
        colour = "red"
        [host]
        prot = 1
        shards = "many"
        [shard]
        watchdog_s = 0
        [hubs]
    """)
    problems = problems_of(
        path=path,
        environ={"SHARDRT_HUB_PARTITIONS": "none", "SHARDRT_LIMITS_PAYLOAD_BYTES": "1"},
        overrides={"store.url": "mysql://x", "host.port": True},
    )
    assert problems == [
        f"colour: not a table (from {path})",
        f"host.prot: unknown setting; did you mean host.port? (from {path})",
        f"host.shards: expected int, got str (from {path})",
        f"shard.watchdog_s: expected float >= 1.0 (from {path})",
        f"hubs: unknown setting; did you mean hub? (from {path})",
        "hub.partitions: expected int, got str (from SHARDRT_HUB_PARTITIONS)",
        (
            "limits.payload_bytes: unknown setting; did you mean limits.payload_bytes_max? "
            "(from SHARDRT_LIMITS_PAYLOAD_BYTES)"
        ),
        "host.port: expected int, got bool (from arguments)",
        "store.url: use memory://, sqlite:///file.db or postgresql://user:password@host/database",
    ]


def test_a_setting_that_resembles_nothing_gets_no_suggestion():
    assert problems_of(overrides={"zzz.qqq": 1}) == ["zzz.qqq: unknown setting (from arguments)"]


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "absent.toml"
    assert problems_of(path=path) == [f"{path}: No such file or directory"]


def test_a_malformed_file_says_where(write):
    path = write("[host\n")
    (problem,) = problems_of(path=path)
    assert problem.startswith(f"{path}: ")
    assert "line 1" in problem


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "host.toml"
    path.write_bytes(b"\xff\xfe")
    (problem,) = problems_of(path=path)
    assert "utf-8" in problem


def test_construction_checks_types_and_bounds():
    with pytest.raises(ConfigInvalid) as caught:
        Settings(host=HostSettings(port=70_000, bind=5), hub=HubSettings(partitions=0))  # type: ignore[arg-type]
    assert caught.value.problems == [
        "hub.partitions: expected int >= 1",
        "host.bind: expected str, got int",
        "host.port: expected int <= 65535",
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"host": HostSettings(app="orders")}, "host.app: write it as module:attribute"),
        (
            {"host": HostSettings(token="a", token_file="b")},
            "host.token: give either token or token_file",
        ),
        (
            {"host": HostSettings(bind="0.0.0.0")},
            (
                "host.bind: 0.0.0.0 can be reached by others: set token_file, or open_access "
                "(--token-file, --insecure)"
            ),
        ),
        (
            {
                "shard": ShardSettings(journal_buffer_bytes_max=2048),
                "limits": LimitSettings(payload_bytes_max=4096),
            },
            "limits.payload_bytes_max: is more than shard.journal_buffer_bytes_max",
        ),
        (
            {"store": StoreSettings(url="sqlite://file.db")},
            "store.url: write sqlite:///relative/file.db or sqlite:////absolute/file.db",
        ),
        (
            {"store": StoreSettings(url="postgresql://u:p#w:x@h:port/d")},
            "store.url: not a valid URL; escape special characters of the password (%40 for @)",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, problem):
    with pytest.raises(ConfigInvalid) as caught:
        Settings(**settings)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "sqlite:///hub.db",
        "sqlite:////var/lib/hub.db",
        "postgresql://u:p@h:5432/d?schema=s",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://h1:5432,h2:5432/d",
    ],
)
def test_store_urls_of_every_kind_are_accepted(url):
    assert load(overrides={"store.url": url}).store.url == url


@pytest.mark.parametrize(
    "host",
    [
        HostSettings(bind="0.0.0.0", token="t"),
        HostSettings(bind="0.0.0.0", token_file="f"),
        HostSettings(bind="0.0.0.0", open_access=True),
        HostSettings(bind="::1"),
    ],
)
def test_an_address_is_accepted_if_it_is_private_or_guarded(host):
    assert Settings(host=host).host == host


def test_json_carries_everything_to_a_child_process():
    settings = Settings(
        store=StoreSettings(url="postgresql://u:secret@h/d"), host=HostSettings(token="t", shards=5)
    )
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("encoded", [b"{", b'{"host": {"port": "x"}}', b'{"host": {"port": -1}}'])
def test_unreadable_json_is_refused(encoded):
    with pytest.raises(ConfigInvalid):
        Settings.from_json(encoded)


def test_no_secret_is_shown():
    settings = Settings(
        store=StoreSettings(url="postgresql://u:hush@h/d"), host=HostSettings(token="hush")
    )
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)
    assert "postgresql://u:***@h/d" in repr(settings)


@pytest.mark.parametrize("value", ["postgresql://u:hush@[h/d", "hush://u:hush@h/d", "//u:hush@h"])
def test_no_problem_shows_a_secret(value):
    assert not any("hush@" in problem for problem in problems_of(overrides={"store.url": value}))


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:p@h:1/d?schema=s", "postgresql://u:***@h:1/d?schema=s"),
        ("postgresql://u@h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://h:1/d", "postgresql://h:1/d"),
        ("postgresql://u:p@w/o?r#d@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://h/d?sslpassword=p", "postgresql://h/d?sslpassword=***"),
        ("host=h password=p user=u", "host=h password=*** user=u"),
        (r"host=h password = 'p \' q' user=u", "host=h password = *** user=u"),
        ("sqlite:///hub.db", "sqlite:///hub.db"),
        ("memory://", "memory://"),
        ("", ""),
    ],
)
def test_passwords_are_masked(url, masked):
    assert mask_dsn(url) == masked


@given(st.text())
def test_no_password_survives_masking(password):
    url = f"postgresql://u:{password}@h/d"
    assert mask_dsn(url) == "postgresql://u:***@h/d"


def test_the_token_comes_from_a_file_or_from_the_setting(tmp_path):
    path = tmp_path / "token"
    path.write_text(" secret\n")
    assert Settings().tokens().first is None
    assert Settings(host=HostSettings(token="t")).tokens().first == "t"
    assert Settings(host=HostSettings(token_file=str(path))).tokens().first == "secret"


def test_there_are_example_settings():
    assert [path.name for path in CONFIGS] == [
        "bench.toml",
        "cluster.toml",
        "dev.toml",
        "single.toml",
        "three-shards.toml",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_example_settings_load(path):
    assert replace(load(path), host=HostSettings()) != Settings(host=HostSettings())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_example_settings_comment_on_every_setting(path):
    previous = ""
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            assert previous.startswith("#"), line
        previous = line if not line or line.startswith(("#", "[")) else previous
    assert path.read_text().startswith("# ")


def test_every_setting_is_documented():
    for section, kind in section_types().items():
        text = (CONFIGS[0].parents[1] / "shardrt/config/settings.py").read_text()
        body = text[text.index(f"class {kind.__name__}:") :].split("@dataclass")[0]
        for entry in fields(kind):
            after = body[body.index(f"    {entry.name}: ") :].split("\n", 1)[1]
            assert after.lstrip().startswith('"""'), f"{section}.{entry.name}"


@pytest.mark.parametrize("host_id", ["a b", "a/b", "a\n", "é", "x" * 256])
def test_names_of_hosts_fit_into_labels_and_log_lines(host_id: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"host\.host_id"):
        Settings(host=HostSettings(host_id=host_id))


def test_a_host_may_be_called_like_its_machine() -> None:
    assert HostSettings(host_id="db-1.example.org:8520").host_id
    Settings(host=HostSettings(host_id="db-1.example.org:8520"))
