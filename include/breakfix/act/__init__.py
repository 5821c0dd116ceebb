"""act: the only stage with side effects. Each act asks `guard.check` first, and may be repeated."""
