"""The demo: GPUs break in a simulated fleet, and each node's way back to service can be watched."""
