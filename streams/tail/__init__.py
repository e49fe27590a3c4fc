"""The tail, the highest tier: the newest entries in memory, and the readers over all three tiers.

tail.py                        the entries of one project, as frames
registry.py tail_factory.py    which tails there are, and how one is made
lane_set.py lane.py packed_read.py   how tails are filled from Redis
gap_filler.py heads_poll.py    how they are filled from Postgres, and who notices that they must
signal_fanout.py               ephemeral events and notices, which are not stored
reader.py lower_tiers.py       a cursor over tail, window and log
follow.py                      the reader of the library's own followers
"""
