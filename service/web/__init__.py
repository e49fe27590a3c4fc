"""The demo page: one file without dependencies, read from the package."""
