"""The tail, the highest tier: the newest entries in memory, and who reads from which tier."""
