"""From Prometheus to verdicts: the product's way, and those that it is compared with."""
