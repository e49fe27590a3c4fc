"""`python -m service`: the command `seqstream`."""

from service.cli import main

main()
