"""What an operator runs.

Production: `commands.py` (entry point), `serving.py`, `supervisor.py` (`serve --workers N`),
`parent.py`, `private_environ.py`, `doctor.py`. For `seqstream dev`, tests and benchmarks only:
`dev.py`, `embedded.py`, `embedded_server.py`, `launching.py`, `private_files.py`.
"""
