"""The web service over `streams`: HTTP, Server-Sent Events, settings and commands."""
