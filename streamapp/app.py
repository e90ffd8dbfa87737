"""The composition root: the Faust app and its agents. The only global of the program."""

from __future__ import annotations

import os
import sys
from typing import Any

import faust

from streamapp.resilience import crash_points
from streamapp.settings import Settings, load
from streamapp.web.routes import install
from streamapp.worker.faust_app import MAX_POLL_INTERVAL, METADATA_MAX_AGE, StreamApp, StreamWorker
from streamapp.worker.runtime import Runtime
from streamapp.worker.startup import StartRefused, check_start
from streamapp.worker.state_directory import StateDirectory, StateRefused


def build(settings: Settings) -> tuple[StreamApp, Runtime]:
    """The app and its runtime; connects to nothing."""
    brokers = ";".join(
        f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(",")
    )
    app = StreamApp(
        settings.consumer_group,
        broker=brokers,
        store="rocksdb://",
        datadir=str(settings.data_dir),
        topic_partitions=settings.topic_partitions,
        topic_replication_factor=settings.topic_replication,
        topic_allow_declare=settings.declare_topics,
        topic_disable_leader=True,
        table_standby_replicas=settings.standby_replicas,
        stream_wait_empty=False,
        stream_buffer_maxsize=4096,
        broker_session_timeout=settings.session_timeout,
        broker_heartbeat_interval=settings.session_timeout / 3,
        broker_request_timeout=max(90.0, settings.session_timeout + 10),
        broker_rebalance_timeout=60.0,
        broker_max_poll_interval=MAX_POLL_INTERVAL,
        broker_commit_interval=settings.commit_interval,
        # Faust warns of streams and commits that stand still, for every partition and again and
        # again; during an outage they have to. Readiness and the lag tell it instead.
        stream_processing_timeout=MAX_POLL_INTERVAL,
        broker_commit_livelock_soft_timeout=MAX_POLL_INTERVAL,
        consumer_auto_offset_reset="earliest",
        # A topic that was deleted and made again is read again only after a look at this age.
        consumer_metadata_max_age_ms=METADATA_MAX_AGE,
        producer_linger=0.05,
        consumer_max_fetch_size=settings.max_fetch_bytes,
        # A backlog is fetched in large pieces; this many records become objects at a time.
        broker_max_poll_records=500,
        web_tables_enabled=settings.faust_pages,
        web_router_enabled=settings.faust_pages,
        web_bind=settings.web_host,
        web_port=settings.web_port or 6066,
        debug=False,
        Worker=StreamWorker,
    )
    crash_points.arm_for(settings.crash_point)
    app.settings = settings
    if settings.web_port == 0:
        app.boot_strategy.enable_web = False  # the command line's default overrules the setting
    runtime = Runtime(settings, app)

    state = StateDirectory(settings.data_dir)

    async def before_start() -> None:
        try:
            state.take()
            partitions = await check_start(settings)
        except (StateRefused, StartRefused) as refused:
            print(f"streamapp does not start.\n{refused}", file=sys.__stderr__, flush=True)
            # Faust would print this as a crash of its own, and stop in ten lines of trace.
            os._exit(1)
        runtime.table.set_partitions(partitions)
        await runtime.start()
        install(app, runtime.views, settings.admin_token)

    app.before_start = before_start
    app.hand_over = runtime.hand_over
    app.after_stop = runtime.stop

    async def on_revoked(_: Any, revoked: Any, **__: Any) -> None:
        await app._hand_over(stopping=False)

    async def on_assigned(_: Any, assigned: Any, **__: Any) -> None:
        runtime.dead_letters.assigned()
        if runtime.deliveries is not None:
            runtime.deliveries.assigned()
        runtime.intake.assigned(
            (tp.topic, tp.partition) for tp in assigned if tp.topic == settings.input_topic
        )

    app.on_partitions_revoked.connect(on_revoked, weak=False)
    app.on_partitions_assigned.connect(on_assigned, weak=False)

    def raw(name: str) -> Any:
        return app.topic(name, key_serializer="raw", value_serializer="raw", allow_empty=True)

    @app.agent(raw(settings.input_topic), name="ai-results")  # type: ignore[untyped-decorator]
    async def ai_results(stream: faust.Stream) -> None:
        """Turns AI results into finished work."""
        app.queues[settings.input_topic] = stream.channel.queue
        async for event in stream.noack().events():
            await runtime.accept(event)

    @app.agent(raw(settings.dlq_topic), name="dead-letters")  # type: ignore[untyped-decorator]
    async def dead_letters(stream: faust.Stream) -> None:
        """Keeps the table of dead letters."""
        app.queues[settings.dlq_topic] = stream.channel.queue
        async for event in stream.noack().events():
            await runtime.accept_dead_letter(event)

    if settings.sends_replies:

        @app.agent(raw(settings.outbound_topic), name="replies")  # type: ignore[untyped-decorator]
        async def replies(stream: faust.Stream) -> None:
            """Sends the replies."""
            app.queues[settings.outbound_topic] = stream.channel.queue
            async for event in stream.noack().events():
                await runtime.accept_reply(event)

    return app, runtime


app, runtime = build(load())
