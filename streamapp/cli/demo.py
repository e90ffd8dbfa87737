"""``streamapp demo``: everything here, with sample traffic."""

from __future__ import annotations

import asyncio

import click

from streamapp.cli.running import Failed, json_option, print_fields, print_json, run


@click.command()
@click.option("--messages", type=click.IntRange(1), help="Send so many; without it, until Ctrl-C.")
@click.option("--exit", "exit_", is_flag=True, help="End when all of them are worked off.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the sample traffic.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1000, min_open=True),
    default=40.0,
    show_default=True,
    help="Messages a second.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Of the worker's views; 6066 if it is free."
)
@click.option("--patience", type=click.FloatRange(0), default=30.0, hidden=True)
@click.option("--lose", is_flag=True, hidden=True)
@json_option
def demo(
    messages: int | None,
    exit_: bool,
    seed: int,
    rate: float,
    port: int | None,
    patience: float,
    lose: bool,
    as_json: bool,
) -> None:
    """Run broker, database, services, a worker and sample traffic, until Ctrl-C.

    Everything is embedded and in a scratch directory; nothing is left afterwards. Exit code 1
    tells that a message was lost, or that something did not start.
    """
    if exit_ and messages is None:
        raise click.UsageError("--exit needs --messages")
    try:
        from streamapp.demo.display import Display
        from streamapp.demo.runner import Options, run_demo
        from streamapp.demo.stack import DemoError
    except ImportError as error:
        raise Failed(f"{error}: install streamapp with its extra, streamapp[demo]") from None
    options = Options(
        messages=messages,
        exit=exit_,
        seed=seed,
        port=port,
        rate=rate,
        patience=patience,
        lose=lose,
    )
    try:
        summary = run(run_demo(options, Display()))
    except DemoError as error:
        raise Failed(str(error)) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise Failed("stopped") from None
    if as_json:
        print_json(summary.as_dict())
    else:
        print_fields(summary.as_dict())
    if summary.unaccounted > 0 and summary.lost:
        raise Failed(f"{summary.unaccounted} messages are missing: sent, but not accounted for")
    if summary.lost:
        raise Failed(f"{-summary.unaccounted} more messages are accounted for than were sent")
