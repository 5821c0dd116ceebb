"""Fixtures that all tests share. What only one kind of test needs lives beside it."""
