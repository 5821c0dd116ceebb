"""The stack under random kills: every case must end right, and no rule may break on the way."""
