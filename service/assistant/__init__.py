"""Answers in plan mode: the assistants, and the answers that run in this process."""
