"""`python -m bench`: a short pass of all workloads; see `bench/all.py` for the options."""

from bench.all import main

main()
