"""Clients and callers that stall, are slow, or disconnect; other clients must not be affected."""

from __future__ import annotations

from tests.faults.load import Size
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan
from tests.support.build_checker import StatusGuarantee


async def nothing(scene: Scene) -> None:
    """The load alone, without a fault: the checkers must find nothing."""
    await scene.last()


async def stalled_until_closed(scene: Scene) -> None:
    """Many clients stop reading; the service closes them; they reconnect and get everything."""
    stalled = [client for client in scene.load.others if client.name.startswith("stalled")]
    await scene.last()
    for client in stalled:
        client.resume()
    for client in stalled:
        await client.wait_until(lambda client: client.reconnects > 0, timeout_s=20)
    informed = sum(
        event.data == b'{"reason":"slow_client","reconnect":true}'
        for client in stalled
        for event in client.events("stream.closing")
    )
    scene.notes.append(f"{len(stalled)} reconnected, {informed} received the reason")


async def come_and_go(scene: Scene) -> None:
    """Clients open a stream from the beginning and soon close it, again and again."""
    for _ in range(20):
        late = [await scene.load.join() for _ in range(3)]
        await scene.last(1 / 20)
        for client in late:
            await client.close()
            scene.load.others.remove(client)


FAULTS = [
    Fault("no fault", nothing, silence_s=1.0, statuses=StatusGuarantee.ALL, keeps_pieces=True),
    Fault(
        "many stalled clients",
        stalled_until_closed,
        Plan(settings={"SEQSTREAM_SLOW_CLIENT_SECONDS": "1"}),
        # More than the kernel's buffers of a connection hold.
        size=Size(clients=4, slow=0, stalled=10, posts_per_s=80.0, filler_bytes=40_000),
        short_s=4.0,
        silence_s=1.0,
        statuses=StatusGuarantee.ALL,
        keeps_pieces=True,
    ),
    Fault(
        "many slow clients",
        nothing,
        size=Size(slow=10),
        silence_s=1.0,
        statuses=StatusGuarantee.ALL,
        keeps_pieces=True,
    ),
    Fault(
        "callers leave in the middle of a post",
        nothing,
        size=Size(impatience=0.5),
        statuses=StatusGuarantee.ALL,
        keeps_pieces=True,
    ),
    Fault(
        "clients come and go",
        come_and_go,
        silence_s=1.0,
        statuses=StatusGuarantee.ALL,
        keeps_pieces=True,
    ),
]
