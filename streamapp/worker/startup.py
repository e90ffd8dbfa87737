"""Whether this worker may start: the doctor's checks, waited for, as sentences."""

from __future__ import annotations

import asyncio
import logging

from streamapp.settings import Settings
from streamapp.worker.checks import wait_until_ready
from streamapp.worker.topics import BROKER_ERRORS, topic_admin

log = logging.getLogger("streamapp.start")


class StartRefused(Exception):
    """Something that the worker needs is missing; the message has a sentence for each thing."""


async def check_start(settings: Settings) -> int:
    """Run the checks; gives the number of partitions of the input topic.

    Raises ``StartRefused`` when a check fails for good, or broker or database do not answer
    within ``startup_timeout``.
    """
    checks = await wait_until_ready(settings)
    failed = [check for check in checks if check.fatal]
    if failed:
        raise StartRefused(
            "\n".join(f"{check.name}: {check.detail}; {check.remedy}." for check in failed)
        )
    for check in checks:
        if not check.ok:
            log.warning("%s: %s; %s", check.name, check.detail, check.remedy)
    try:
        async with asyncio.timeout(settings.startup_timeout):
            async with topic_admin(settings, settings.startup_timeout) as admin:
                return (await admin.partitions())[settings.input_topic]
    except BROKER_ERRORS as error:
        raise StartRefused(f"broker: {type(error).__name__}: {error}.") from error
