"""Adapters: the ports over real systems. Only `wiring` and tests import them."""
