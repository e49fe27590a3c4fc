"""What happens to a client, one function each. `verdict.py` says whether it got everything.

A scenario ends with a message that the client has to surface: what came before it in the stream
has been surfaced by then, so nothing is waited for without an end. It raises `Stuck` or `Broken`
when the client does not get that far.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.clients.hostile_texts import hostile_texts
from tests.clients.response_meter import Cut
from tests.clients.scene import START_TIMEOUT_S, Scene
from tests.clients.target import Control

# The first event of a stream may stand in one write with its head; the cut falls between them.
_AFTER_HEAD = Cut(head=True)
_AFTER_FIRST_BLOCK = Cut(blocks=1, hold=True)


@dataclass(frozen=True)
class Scenario:
    """`reconnects`: a client that does not reconnect cannot pass. `nginx`: an nginx in front.

    `heartbeat_s`: the interval that the client's URL asks for.
    """

    name: str
    summary: str
    run: Callable[[Scene], Awaitable[None]]
    controls: frozenset[Control] = frozenset()
    reconnects: bool = False
    nginx: bool = False
    heartbeat_s: int | None = None


async def live(scene: Scene) -> None:
    """Messages one by one, then many at once."""
    await scene.post_before("before the stream")
    await scene.start()
    for number in range(3):
        await scene.post(f"live {number}")
        await scene.received()
    await scene.post(*(f"at once {number}" for number in range(30)))
    await scene.received()


async def cut_early(scene: Scene) -> None:
    """The connection breaks after the head, then after the first block; messages are missed."""
    await scene.post_before("before the stream")
    scene.proxy.cut_next(_AFTER_HEAD, _AFTER_FIRST_BLOCK)
    await scene.start_program()
    await scene.wait(lambda: scene.proxy.cuts_made == 2, "both cuts", timeout_s=START_TIMEOUT_S)
    await scene.post("missed 1", "missed 2")
    scene.proxy.release()
    await scene.ready()
    await scene.post("after the cut")
    await scene.received()


async def cut_middle(scene: Scene) -> None:
    """The connection is reset, then ends, then is reset within a block; messages are missed."""
    await scene.start()
    await scene.post("first")
    await scene.received()
    for reset in (True, False):
        scene.proxy.hold()
        scene.proxy.cut_now(reset=reset)
        await scene.post(*(f"missed {reset} {number}" for number in range(5)))
        scene.proxy.release()
        await scene.received()
        await scene.ready()
        await scene.post(f"between cuts {reset}")
        await scene.received()
    scene.proxy.cut_later(Cut(body_bytes=1000, hold=True))
    before = scene.proxy.cuts_made
    await scene.post("cut in the middle " + "x" * 4000)
    await scene.wait(lambda: scene.proxy.cuts_made > before, "the cut within a block")
    await scene.post("missed at last")
    scene.proxy.release()
    await scene.received()


async def restart(scene: Scene) -> None:
    """The service ends with SIGTERM, messages are missed, it starts again."""
    await scene.start()
    await scene.post("before the end")
    await scene.received()
    await scene.channel.stop()
    await scene.post("missed 1", "missed 2", "missed 3")
    await scene.channel.start()
    await scene.received()
    await scene.post("after the start")
    await scene.received()


async def refusal(scene: Scene) -> None:
    """The stream is refused in band before it was ever open, and again between two openings."""
    await scene.channel.occupy()
    await scene.start_program()
    await scene.refused()
    await scene.channel.leave()
    await scene.ready()
    await scene.post("after the first refusal")
    await scene.received()
    scene.proxy.hold()
    scene.proxy.cut_now()
    await scene.channel.occupy()
    await scene.post("missed 1", "missed 2")
    scene.proxy.release()
    await scene.refused()
    await scene.channel.leave()
    await scene.received()
    await scene.post("after the second refusal")
    await scene.received()


async def hostile(scene: Scene) -> None:
    """Texts of every kind and size, one after the other."""
    await scene.start()
    bare = scene.target.reading.text is None
    texts = hostile_texts(scene.target.longest_text_bytes, bare=bare)
    for text in texts:
        await scene.post(text)
    await scene.received()
    await scene.post("after the hostile texts")
    await scene.received()


async def heartbeats(scene: Scene) -> None:
    """Two intervals of silence, then a message."""
    await scene.start()
    name = scene.target.heartbeat_event or ""
    await scene.wait(lambda: scene.proxy.events(name) >= 2, "two heartbeats")
    await scene.post("after the silence")
    await scene.received()


async def silence(scene: Scene) -> None:
    """As long a silence as the service allows without being asked for another, then a message."""
    await scene.start(own_heartbeat=False)
    name = scene.target.heartbeat_event or ""
    await scene.wait(lambda: scene.proxy.events(name) >= 1, "a heartbeat")
    await scene.post("after the silence")
    await scene.received()


async def missed(scene: Scene) -> None:
    """More is missed than is replayed: the named range and the events make the whole."""
    await scene.start()
    await scene.post("first")
    await scene.received()
    scene.proxy.hold()
    scene.proxy.cut_now()
    texts = [f"missed {number}" for number in range(scene.target.replay_limit + 60)]
    await scene.post(*texts)
    scene.proxy.release()
    await scene.fetch_gap(texts[-1])
    await scene.ready()
    await scene.post("after the gap")
    await scene.received()


async def nginx(scene: Scene) -> None:
    """Live messages, a long one, and a reset, with nginx between the client and the service."""
    await scene.start()
    await scene.post("through nginx")
    await scene.received()
    await scene.post("long " + "x" * 60_000)
    await scene.received()
    scene.proxy.hold()
    scene.proxy.cut_now()
    await scene.post("missed 1", "missed 2")
    scene.proxy.release()
    await scene.received()


async def nginx_restart(scene: Scene) -> None:
    """The service behind nginx ends, nginx answers for it, and it starts again."""
    await scene.start()
    await scene.post("through nginx")
    await scene.received()
    await scene.channel.stop()
    await scene.post("missed 1", "missed 2")
    heads = scene.proxy.heads
    await scene.wait(lambda: scene.proxy.heads > heads, "an answer of nginx alone")
    await scene.channel.start()
    await scene.received()
    await scene.post("after the start")
    await scene.received()


ALL = (
    Scenario("live", "live messages", live),
    Scenario("cut-early", "cut before the first message", cut_early, reconnects=True),
    Scenario("cut-middle", "cut in the middle", cut_middle, reconnects=True),
    Scenario(
        "restart", "the service restarts", restart, frozenset({Control.RESTART}), reconnects=True
    ),
    Scenario(
        "refusal", "refused in band", refusal, frozenset({Control.REFUSE}), reconnects=True
    ),
    Scenario("hostile-texts", "hostile texts", hostile),
    Scenario(
        "heartbeats", "heartbeats", heartbeats, frozenset({Control.HEARTBEAT}), heartbeat_s=2
    ),
    Scenario("silence", "15 s of silence", silence, frozenset({Control.HEARTBEAT})),
    Scenario(
        "missed", "more than 200 missed", missed, frozenset({Control.HISTORY}), reconnects=True
    ),
    Scenario(
        "nginx", "behind nginx", nginx, frozenset({Control.LOOPBACK}),
        reconnects=True, nginx=True,
    ),
    Scenario(
        "nginx-restart", "nginx, and the service restarts", nginx_restart,
        frozenset({Control.LOOPBACK, Control.RESTART}), reconnects=True, nginx=True,
    ),
)  # fmt: skip
