"""The command line. Commands are imported when they are run: starting up stays quick."""

from __future__ import annotations

import sys
from difflib import get_close_matches
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
        "cancel": "shardrt.cli.steering:cancel",
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

    extras: ClassVar[dict[str, str]] = {"bench": "bench"}
    """Commands that need more than is always installed: the extra that brings it."""

    elsewhere: ClassVar[dict[str, str]] = {
        "show": "get ID",
        "status": "get ID",
        "describe": "get ID",
        "history": "get ID --history",
        "events": "get ID --history",
        "ls": "list",
        "run": "start NAME --wait",
        "signal": "raise-event ID NAME",
        "kill": "terminate ID",
        "delete": "purge ID",
    }
    """What other tools call it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as missing:
            if cmd_name not in self.extras or (missing.name or "shardrt").startswith("shardrt"):
                raise
            return _unavailable(cmd_name, self.extras[cmd_name], str(missing.name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.places:
            near = get_close_matches(name, self.places, n=1)
            meant = self.elsewhere.get(name) or next(iter(near), "--help")
            ctx.fail(f"No such command {name!r}; did you mean `shardrt {meant}`?")
        return super().resolve_command(ctx, args)


def _unavailable(name: str, extra: str, missing: str) -> click.Command:
    """Return what stands for a command that needs packages which are not installed."""
    need = f"{missing.partition('.')[0]} is not installed: pip install 'shardrt[{extra}]'"

    @click.command(
        name,
        help=f"Not available: {need}",
        short_help=f"(needs pip install 'shardrt[{extra}]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def command() -> None:
        click.echo(f"shardrt: {need}", err=True)
        sys.exit(2)

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
