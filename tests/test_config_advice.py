"""Warnings about settings that are allowed, and the JSON Schema of settings files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from shardrt.config.advice import warnings
from shardrt.config.loading import load_traced
from shardrt.config.schema import schema
from shardrt.config.settings import key_types

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = sorted(CONFIGS.glob("*.toml"))


def warned(
    overrides: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> list[str]:
    loaded = load_traced(overrides=overrides, environ=environ)
    return [each.partition(":")[0] for each in warnings(loaded.settings, loaded.sources)]


def test_the_defaults_have_no_warnings():
    assert warned() == []


@pytest.mark.parametrize(
    ("overrides", "about"),
    [
        ({"store.url": "memory://"}, "store.url"),
        ({"store.unsafe": True}, "store.unsafe"),
        ({"host.bind": "0.0.0.0", "host.open_access": True}, "host.open_access"),
        ({"host.lease_ttl_s": 1.9}, "host.lease_ttl_s"),
        ({"shard.checkpoint_interval_s": 61.0}, "shard.checkpoint_interval_s"),
        ({"retention.completed_s": 59.0}, "retention.completed_s"),
        ({"hub.partitions": 2, "host.shards": 3}, "hub.partitions"),
        ({"shard.activity_concurrency_max": 31}, "shard.activity_threads_max"),
    ],
)
def test_a_warning_names_its_setting(overrides, about):
    assert warned(overrides) == [about]


@pytest.mark.parametrize(
    "overrides",
    [
        {"host.bind": "0.0.0.0", "host.open_access": True, "host.token": "x"},
        {"host.lease_ttl_s": 2.0},
        {"retention.completed_s": 60.0},
        {"hub.partitions": 3, "host.shards": 3},
    ],
)
def test_there_is_none_at_the_bound(overrides):
    assert warned(overrides) == []


def test_secrets_in_files_are_warned_of_and_in_the_environment_not(tmp_path):
    path = tmp_path / "host.toml"
    path.write_text('[host]\ntoken = "x"\n[store]\nurl = "postgresql://me:secret@db/x"\n')
    loaded = load_traced(path)
    told = warnings(loaded.settings, loaded.sources)
    assert [each.partition(":")[0] for each in told] == ["host.token", "store.url"]
    assert "secret@" not in "".join(told)
    environ = {"SHARDRT_HOST_TOKEN": "x", "SHARDRT_STORE": "postgresql://me:secret@db/x"}
    assert warned(environ=environ) == []


def test_each_value_knows_where_it_is_from(tmp_path):
    path = tmp_path / "host.toml"
    path.write_text("[host]\nport = 1\nshards = 1\ngateways = 1\n")
    loaded = load_traced(
        path, environ={"SHARDRT_PORT": "2"}, overrides={"host.gateways": 2, "host.bind": None}
    )
    assert loaded.sources == {
        "host.port": "SHARDRT_PORT",
        "host.shards": str(path),
        "host.gateways": "arguments",
    }


# -- the schema ----------------------------------------------------------------------------------


def test_the_schema_that_is_shipped_is_that_of_the_settings():
    shipped = json.loads((CONFIGS / "schema.json").read_text())
    assert shipped == schema(), "run: shardrt config schema > configs/schema.json"


def test_the_schema_explains_every_setting():
    described = [
        of_key["description"]
        for section in schema()["$defs"].values()
        for of_key in section["properties"].values()
    ]
    assert len(described) == len(key_types())
    assert all(described)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_presets_fit_the_schema(preset):
    jsonschema.validate(tomllib.loads(preset.read_text()), schema())


@pytest.mark.parametrize(
    "text", ["[hots]\nport = 1\n", "[host]\nprot = 1\n", "[host]\nport = 70000\n", "host = 1\n"]
)
def test_mistakes_do_not(text):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), schema())


def test_the_documentation_has_every_setting_as_it_is():
    page = (CONFIGS.parent / "docs" / "configuration.md").read_text()
    for section in schema()["$defs"].values():
        for key, of_key in section["properties"].items():
            default = (
                f"`{json.dumps(of_key['default'])}`" if "default" in of_key else "one per core"
            )
            description = of_key["description"].replace("|", "\\|")
            assert f"| `{key}` | {default} | {description} |" in page
