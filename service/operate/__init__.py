"""What an operator runs: commands, the supervisor, doctor, and the servers of `seqstream dev`."""
