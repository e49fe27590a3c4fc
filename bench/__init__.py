"""Benchmarks of seqstream and of its peers: one script per workload, one harness.

Run them from the repository's root: `python -m bench.w1_fanout --help`, `python -m bench.all`.
They start their own servers on loopback. Nothing of the package itself imports this folder.
"""
