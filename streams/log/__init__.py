"""The log, the lowest tier: every message, in Postgres. The only room that imports asyncpg."""
