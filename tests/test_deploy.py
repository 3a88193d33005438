"""What is shipped for deployments, and for CI: it parses, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from shardrt.cli.serve import serve
from shardrt.config import load
from shardrt.config.loading import environment_key
from shardrt.config.settings import HostSettings, TracingSettings, key_types
from shardrt.host.meter import LEVELS
from shardrt.links.metrics import CATALOGUE

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "configs" / "deploy"
OPTIONS = {name for parameter in serve.params for name in parameter.opts}
CLIENT_VARIABLES = {"SHARDRT_TOKEN"}
NAMES = re.compile(
    r"\bup\b"
    r"|\b(?:orchestrations|orchestrators|functions|events|timers|state|lease|shardrt)_\w+"
)


def known_series() -> dict[str, set[str]]:
    """Return what can be asked of Prometheus: series → labels."""
    series: dict[str, set[str]] = {
        "up": {"job", "instance"},
        "orchestrations_active": {"instance"},
    }
    for name, metric in CATALOGUE.items():
        labels = {*metric.labels, "host_id"}
        if metric.bounds:
            series |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels}
        else:
            series[name if metric.is_gauge else f"{name}_total"] = labels
    return series


def expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana/dashboards/shardrt.json").read_text())
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    return [
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
    ]


@pytest.mark.parametrize("expression", expressions())
def test_dashboards_and_alerts_ask_for_what_there_is(expression):
    series = known_series()
    named = NAMES.findall(expression)
    assert named, expression
    labels = set(re.findall(r"[{,]\s*([a-z_]+)\s*=", expression))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {each.strip() for each in group.split(",")}
    for each in named:
        assert each in series, each
        assert labels <= series[each], expression
    if "shardrt_level{" in expression:
        (names,) = re.findall(r'name=~?"([^"]*)"', expression)
        assert set(names.split("|")) <= LEVELS


def variables(found: Any) -> set[str]:
    """Return names of our environment variables anywhere in a document."""
    return set(re.findall(r"\bSHARDRT_[A-Z_]+\b", json.dumps(found)))


def commands(text: str) -> list[list[str]]:
    lines = re.findall(r"shardrt serve[^\n\"'`]*", text)
    return [shlex.split(line.split("#")[0]) for line in lines]


@pytest.mark.parametrize(
    "name", ["compose.yaml", "kubernetes/shardrt.yaml", "prometheus.yml", "alerts.yml"]
)
def test_documents_are_yaml_and_name_settings_that_exist(name):
    documents = list(yaml.safe_load_all((DEPLOY / name).read_text()))
    assert documents
    for variable in variables(documents):
        assert environment_key(variable) in key_types(), variable


@pytest.mark.parametrize("name", ["compose.yaml", "systemd/shardrt.service", "Dockerfile"])
def test_commands_have_only_options_that_exist(name):
    text = (DEPLOY / name).read_text()
    for variable in re.findall(r"^ENV .*|SHARDRT_[A-Z_]+(?==)", text):
        for each in re.findall(r"SHARDRT_[A-Z_]+", variable):
            assert each in CLIENT_VARIABLES or environment_key(each) in key_types(), each
    for command in commands(text):
        assert {each for each in command if each.startswith("--")} <= OPTIONS, command


def test_traces_go_where_they_can_be_seen():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    environment = compose["shardrt"]["environment"]
    given = {key: value for key, value in environment.items() if key.startswith("SHARDRT_TRACING")}
    assert load(environ=given).tracing == TracingSettings(enabled=True, sample_ratio=1.0)
    # What exports is in the image, and what receives is beside it.
    assert '"/src[otel]"' in (DEPLOY / "Dockerfile").read_text()
    assert urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"]).hostname in compose
    provisioned = DEPLOY / "grafana/provisioning/datasources/shardrt.yaml"
    for source in yaml.safe_load(provisioned.read_text())["datasources"]:
        assert urlsplit(source["url"]).hostname in compose


def test_stopping_has_longer_than_draining():
    default_s = HostSettings().drain_s
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    pods = yaml.safe_load_all((DEPLOY / "kubernetes/shardrt.yaml").read_text())
    (deployment,) = [each for each in pods if each["kind"] == "Deployment"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > default_s
    assert int(compose["services"]["shardrt"]["stop_grace_period"].rstrip("s")) > default_s
    unit = (DEPLOY / "systemd/shardrt.service").read_text()
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > default_s


def test_ci_runs_commands_that_exist_on_every_python_that_is_supported():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    supported = re.findall(r"Python :: (3\.\d+)", " ".join(classifiers))
    assert jobs["linux"]["strategy"]["matrix"]["python"] == supported
    ran = {
        name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()
    }
    assert ran["linux"][-1] == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "install --yes postgresql" in ran["linux"][0]
    (tests,) = ran["macos"]
    assert tests in (ROOT / "README.md").read_text()
    # A failure fails the build.
    assert not re.search(r"continue-on-error|\|\| *(true|:)", json.dumps(jobs))
