"""`python -m service`: the command `seqstream`."""

from service.operate.commands import main

main()
