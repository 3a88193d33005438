"""The command line. Commands are imported when they are run: starting up stays quick."""

from __future__ import annotations

from importlib import import_module
from typing import ClassVar

import click


class LazyGroup(click.Group):
    """A group that knows where its commands are without importing them."""

    places: ClassVar[dict[str, str]] = {
        "serve": "shardrt.cli.serve:serve",
        "start": "shardrt.cli.commands:start",
        "get": "shardrt.cli.commands:get",
        "wait": "shardrt.cli.commands:wait",
        "list": "shardrt.cli.commands:list_instances",
        "raise-event": "shardrt.cli.steering:raise_event",
        "terminate": "shardrt.cli.steering:terminate",
        "suspend": "shardrt.cli.steering:suspend",
        "resume": "shardrt.cli.steering:resume",
        "rewind": "shardrt.cli.steering:rewind",
        "restart": "shardrt.cli.steering:restart",
        "purge": "shardrt.cli.steering:purge",
        "entity": "shardrt.cli.entity:entity",
        "schedule": "shardrt.cli.schedule:schedule",
        "limits": "shardrt.cli.limits:limits",
        "why": "shardrt.cli.why:why",
        "cluster": "shardrt.cli.cluster:cluster",
        "db": "shardrt.cli.db:db",
        "verify": "shardrt.cli.verify:verify",
        "check": "shardrt.cli.check:check",
        "export": "shardrt.cli.export:export",
        "replay": "shardrt.cli.replay:replay",
        "init": "shardrt.cli.init:init",
        "config": "shardrt.cli.config:config",
        "bench": "shardrt.cli.bench:bench",
        "sim": "shardrt.cli.sim:sim",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"auto_envvar_prefix": "SHARDRT", "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="shardrt")
def main() -> None:
    """Durable orchestrations in plain async Python.

    Exit codes: 0 done, 1 the operation failed, 2 wrong usage. Every option has an
    environment variable: SHARDRT_URL, SHARDRT_TOKEN, and SHARDRT_COMMAND_OPTION.
    """
