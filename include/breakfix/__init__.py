"""Break-fix automation for GPU fleets on Kubernetes."""

__version__ = "0.1.0"
