"""Algorithms: each module has a function that makes an `Algorithm` from an environment and a configuration."""
