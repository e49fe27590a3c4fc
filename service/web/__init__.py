"""The pages: files without dependencies, read from the package."""
