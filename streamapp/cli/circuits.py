"""``streamapp circuits``: the circuits of one worker, asked over its API."""

from __future__ import annotations

from typing import Any

import aiohttp
import click

from streamapp.cli.running import Failed, json_option, load_settings, print_json, print_table, run
from streamapp.settings import Settings

TIMEOUT = 10.0  # seconds


@click.group()
def circuits() -> None:
    """Look at a worker's circuits."""


@circuits.command("list")
@click.option("--url", help="Address of the worker; default: as its settings say, on this machine.")
@json_option
def list_(url: str | None, as_json: bool) -> None:
    """Every circuit with its state."""
    settings = load_settings()
    answer = run(ask(settings, url, "GET", "/api/circuits"))
    if as_json:
        print_json(answer["circuits"])
        return
    columns = ("name", "state", "calls", "failures", "slow", "waiting")
    print_table(columns, [[row.get(column) for column in columns] for row in answer["circuits"]])


async def ask(settings: Settings, url: str | None, method: str, path: str) -> Any:
    """Call a worker's API with the admin token of the settings. Raises ``Failed``."""
    base = (url or _own_address(settings)).rstrip("/")
    headers = {}
    if settings.admin_token is not None:
        headers["Authorization"] = f"Bearer {settings.admin_token.get_secret_value()}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, base + path, headers=headers) as response,
        ):
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Failed(
            f"{base} gives no answer of a worker: {error or type(error).__name__}"
        ) from None
    if response.status != 200:
        text = answer.get("error") if isinstance(answer, dict) else None
        raise Failed(f"{base} refused: {text or response.status}")
    return answer


def _own_address(settings: Settings) -> str:
    host = settings.web_host
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- what a worker listens on, not an address
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{settings.web_port}"
