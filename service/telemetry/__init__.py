"""What a process reports of itself: log lines and metrics."""
