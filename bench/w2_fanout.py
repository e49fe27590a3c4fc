"""W2: fan-out of 100 messages a second to 1,000 connections, posted over HTTP."""

from __future__ import annotations

from bench.harness.fanout import FanoutTargets, measure_fanout
from bench.harness.options import Options, command
from bench.harness.posting import Load
from bench.harness.report import Report, Screen
from bench.harness.targets import Target

WORKLOAD = "w2_fanout"
TARGETS = FanoutTargets(
    cpu=Target("W2", "CPU per delivery, service + Redis, to nchan + Redis", at_most=0.8),
    p99=Target("W2", "p99 post to event, to nchan", at_most=1.0),
    lost=Target("W2", "lost, repeated or out of order", at_most=0),
)


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload."""
    connections = options.sizes[0] if options.sizes else 1000
    load = Load(
        connections=connections, rate=100, seconds=options.seconds, text_bytes=options.text_bytes
    )
    title = f"W2: fan-out, {connections} connections x 100 messages/s"
    return await measure_fanout(WORKLOAD, title, load, TARGETS, options, screen)


main = command(measure, help_text=__doc__, sizes_help="Connections [1000].")

if __name__ == "__main__":
    main()
