"""Faults on real processes, judged by `tests.support.checker`.

`world.py` starts the servers and processes, `load.py` the writers and clients. `scenario.py` runs
one fault and judges it; the verdict's record is in `result.py`. `*_faults.py` define the faults,
one family a file; `catalogue.py` lists them. `python -m tests.faults` runs them at full length;
`test_faults.py` runs a short version of each.
"""
