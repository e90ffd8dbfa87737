"""``streamapp doctor``: whether a worker could start, and what to do where it could not."""

from __future__ import annotations

from dataclasses import asdict

import click

from streamapp.cli.running import json_option, load_settings, print_json, run, shown
from streamapp.worker.checks import run_checks


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for broker and database.",
)
@json_option
def doctor(timeout: float, as_json: bool) -> None:
    """Check configuration, broker, topics, database and migrations.

    Exits 1 when something would stop a worker; warnings do not count.
    """
    checks = run(run_checks(load_settings(), timeout))
    healthy = not any(check.fatal for check in checks)
    if as_json:
        print_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mark = "ok" if check.ok else "FAILED" if check.fatal else "warning"
            click.echo(f"{mark:8}{check.name.ljust(width)}  {shown(check.detail)}")
            if not check.ok and check.remedy:
                click.echo(f"{'':8}{'':{width}}  -> {check.remedy}")
    if not healthy:
        raise SystemExit(1)
