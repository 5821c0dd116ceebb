"""A simulated GPU fleet: a Kubernetes API, exporters, kubelets and faults, over real HTTP."""
