"""The web service over `streams`: HTTP, Server-Sent Events, settings and commands."""

__version__ = "0.1.0"
