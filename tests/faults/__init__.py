"""Faults on real processes, judged by `tests.support.checker`.

`world.py` is what runs, `load.py` who uses it, `scenario.py` one fault from begin to verdict,
`*_faults.py` the faults, one family a file, `catalogue.py` all of them. `python -m tests.faults`
runs them at length; `test_faults.py` runs a short version of each.
"""
