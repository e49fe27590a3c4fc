"""Builds: their rows in Postgres, their statuses in the window, and news for workers."""
