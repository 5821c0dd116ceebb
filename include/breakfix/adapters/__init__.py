"""What stands behind the ports: Prometheus, Kubernetes, the node agent, the ledger, the
notifier.
"""
