"""Builds: their rows in Postgres, their statuses in the stream, and who hears of them."""
