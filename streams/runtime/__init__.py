"""What every tier uses while it runs: the health of servers, the observer, owned tasks."""
