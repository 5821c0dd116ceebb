"""The ports' other side: Prometheus, Kubernetes, the ledger. Nothing here decides."""
