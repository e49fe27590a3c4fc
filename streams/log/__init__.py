"""The log, the lowest tier: all messages, in Postgres. The only package that imports asyncpg."""
