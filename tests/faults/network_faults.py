"""Connections to clients, Redis and Postgres are cut, delayed, slowed, refused or stalled."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan
from tests.support.build_checker import StatusGuarantee
from tests.support.tcp_proxy import TcpProxy

_PROXIED = Plan(proxied=True)


def _redis(scene: Scene) -> list[TcpProxy]:
    assert scene.world.redis_proxy is not None
    return [scene.world.redis_proxy]


def _postgres(scene: Scene) -> list[TcpProxy]:
    assert scene.world.postgres_proxy is not None
    return [scene.world.postgres_proxy]


async def _cut_often(scene: Scene, proxies: Sequence[TcpProxy], share: float) -> None:
    cut = 0
    for _ in range(10):
        for proxy in proxies:
            cut += proxy.cut(share)
        await scene.last(0.1)
    scene.notes.append(f"{cut} connections cut")


async def _stall(scene: Scene, proxies: Sequence[TcpProxy], *, then_cut: bool = True) -> None:
    for proxy in proxies:
        proxy.stall()
    await scene.last()
    for proxy in proxies:
        if then_cut:
            proxy.cut()
        await proxy.heal()
    await scene.last(0.3)


async def _delay(scene: Scene, proxies: Sequence[TcpProxy], delay_s: float) -> None:
    for proxy in proxies:
        proxy.delay_s = delay_s
    await scene.last()
    for proxy in proxies:
        await proxy.heal()


async def _drip(scene: Scene, proxies: Sequence[TcpProxy], bytes_per_s: float) -> None:
    for proxy in proxies:
        proxy.bytes_per_s = bytes_per_s
    await scene.last()
    for proxy in proxies:
        await proxy.heal()


async def clients_cut(scene: Scene) -> None:
    """Half of the clients' connections are reset, ten times."""
    await _cut_often(scene, scene.world.client_proxies, 0.5)


async def clients_stalled(scene: Scene) -> None:
    """Half-open: no bytes pass and no connection ends; then all are reset."""
    await _stall(scene, scene.world.client_proxies)


async def clients_held_back(scene: Scene) -> None:
    """No bytes pass for a while; then they are delivered, on the same connections."""
    await _stall(scene, scene.world.client_proxies, then_cut=False)


async def clients_dripped(scene: Scene) -> None:
    """All connections of clients pass a few kilobytes a second."""
    await _drip(scene, scene.world.client_proxies, 20_000)


async def redis_cut(scene: Scene) -> None:
    """All connections to Redis are reset, ten times."""
    await _cut_often(scene, _redis(scene), 1.0)


async def redis_stalled(scene: Scene) -> None:
    """Redis is half-open: connections are accepted and nothing is answered."""
    await _stall(scene, _redis(scene))


async def redis_refused(scene: Scene) -> None:
    """Connections to Redis are refused."""
    (proxy,) = _redis(scene)
    await proxy.refuse()
    await scene.last()
    await scene.all_delivered()
    await proxy.heal()
    await scene.last(0.3)


async def redis_delayed(scene: Scene) -> None:
    """Redis has a high latency."""
    await _delay(scene, _redis(scene), 0.05)


async def redis_dripped(scene: Scene) -> None:
    """Connections to Redis pass a few kilobytes a second."""
    await _drip(scene, _redis(scene), 10_000)


async def postgres_cut(scene: Scene) -> None:
    """Connections to Postgres are reset, some between a commit and its answer."""
    await _cut_often(scene, _postgres(scene), 0.5)


async def postgres_stalled(scene: Scene) -> None:
    """Postgres is half-open: connections are accepted and nothing is answered."""
    await _stall(scene, _postgres(scene))


async def postgres_held_back(scene: Scene) -> None:
    """Postgres' answers are held back, and delivered later on the same connections."""
    await _stall(scene, _postgres(scene), then_cut=False)


async def postgres_delayed(scene: Scene) -> None:
    """Postgres has a high latency."""
    await _delay(scene, _postgres(scene), 0.05)


FAULTS = [
    Fault("clients cut", clients_cut, _PROXIED, statuses=StatusGuarantee.ALL),
    Fault(
        "clients half-open, then cut",
        clients_stalled,
        _PROXIED,
        short_s=2.5,
        statuses=StatusGuarantee.NONE,
    ),
    Fault("clients held back", clients_held_back, _PROXIED, statuses=StatusGuarantee.NONE),
    Fault("clients dripped", clients_dripped, _PROXIED, statuses=StatusGuarantee.NONE),
    Fault("redis connections cut", redis_cut, _PROXIED, silence_s=1.0),
    Fault("redis half-open", redis_stalled, _PROXIED, short_s=2.5),
    Fault("redis refused", redis_refused, _PROXIED, silence_s=1.0),
    Fault("redis far away", redis_delayed, _PROXIED, silence_s=1.0),
    Fault("redis dripped", redis_dripped, _PROXIED),
    Fault("postgres connections cut", postgres_cut, _PROXIED, statuses=StatusGuarantee.ALL),
    Fault(
        "postgres half-open", postgres_stalled, _PROXIED, short_s=2.5, statuses=StatusGuarantee.ALL
    ),
    Fault("postgres held back", postgres_held_back, _PROXIED, statuses=StatusGuarantee.ALL),
    Fault("postgres far away", postgres_delayed, _PROXIED, statuses=StatusGuarantee.ALL),
]
