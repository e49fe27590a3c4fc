"""The worker: it claims builds and runs their commands."""
