"""Tests of the routes' pure parts."""
