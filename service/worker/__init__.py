"""The worker: claims builds and runs their commands."""
