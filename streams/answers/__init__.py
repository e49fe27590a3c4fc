"""Answers of assistants: their rows in Postgres."""
