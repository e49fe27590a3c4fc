"""The assistant's answers: their rows in Postgres."""
