"""What every tier uses while it runs: health of the servers, observer, ending of tasks."""
