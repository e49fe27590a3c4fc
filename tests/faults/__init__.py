"""Faults on real processes, judged by the checkers of `tests.support`.

`world.py` starts the servers and processes, `load.py` the writers and clients, `answer_load.py`
those of answers. `scenario.py` says what a fault is; `run.py` runs one, `aftermath.py` reads back,
`verdict.py` judges; the verdict's record is in `result.py`. `*_faults.py` define the faults,
one family a file; `catalogue.py` lists them. `python -m tests.faults` runs them at full length;
`test_faults.py` runs a short version of each.
"""
