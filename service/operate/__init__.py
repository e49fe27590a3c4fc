"""What an operator runs.

Production: `commands.py` (entry point), `command_frame.py`, `serving.py`, `supervisor.py` (`serve
--workers N`), `parent.py`, `private_environ.py`, `doctor.py`. Against a running service:
`client_commands.py`, `load_command.py` and the other files of a load run. For `seqstream dev`,
tests and benchmarks only: `dev.py`, `embedded.py`, `embedded_server.py`, `launching.py`,
`private_files.py`.
"""
