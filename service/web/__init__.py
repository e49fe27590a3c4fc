"""The HTML pages, read as package resources; no code lives here."""
