"""The command line: our own commands, and everything that Faust's has.

Modules are imported when their command is used, so that a small command starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from streamapp import __version__

# command: (module, help)
OWN = {
    "demo": ("streamapp.cli.demo", "Run everything here, with sample traffic."),
    "migrate": ("streamapp.cli.migrate", "Bring database and topics up to date."),
    "doctor": ("streamapp.cli.doctor", "Check whether a worker could start."),
    "explain": ("streamapp.cli.explain", "Tell what messages would lead to, and why."),
    "rehearse": ("streamapp.cli.rehearse", "Tell what this code would do otherwise."),
    "actions": ("streamapp.cli.actions", "Show the actions there are."),
    "intents": ("streamapp.cli.intents", "Show the intents there are."),
    "send": ("streamapp.cli.send", "Send JSON lines to the input topic."),
    "dlq": ("streamapp.cli.dlq", "Look at dead letters, send them again."),
    "sagas": ("streamapp.cli.sagas", "Look at sagas, resume or resolve stuck ones."),
    "business": ("streamapp.cli.business", "Look at what businesses set, change it."),
    "outbound": ("streamapp.cli.outbound", "Look at replies, send one again."),
    "circuits": ("streamapp.cli.circuits", "Look at a worker's circuits."),
}
FAUST = {
    "worker": "Start a worker.",
    "agents": "List agents.",
    "tables": "List tables.",
    "model": "Show a model.",
    "models": "List models.",
    "reset": "Delete local table state.",
    "clean-versions": "Delete old versions of local state.",
    "completion": "Output shell completion.",
    "livecheck": "Manage LiveCheck instances.",
}


class _Commands(click.Group):
    """Our commands, imported on use; Faust's are listed only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(OWN)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in OWN:
            return None
        command = getattr(import_module(OWN[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in OWN.items()])
        with formatter.section("Commands of Faust"):
            formatter.write_dl(list(FAUST.items()))


@click.group(cls=_Commands, no_args_is_help=True)
@click.version_option(__version__, prog_name="streamapp")
def cli() -> None:
    """Turns AI results from Kafka into finished work, once.

    Settings come from the environment (STREAMAPP_...).
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit: 0 done, 1 failed, 2 wrong use or a wrong setting."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in OWN or given[0] in ("--help", "--version"):
        cli(args=given, prog_name="streamapp")
    else:
        _faust(given)


def _faust(arguments: list[str]) -> None:
    from streamapp.extensions import ExtensionError
    from streamapp.settings import SettingsError

    try:
        from streamapp.app import app
    except (SettingsError, ExtensionError) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
    # Faust reads the arguments of the process.
    sys.argv = ["streamapp", *arguments]
    app.main()
