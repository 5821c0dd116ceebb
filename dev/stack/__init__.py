"""A private local stack: Postgres, Prometheus, the simulated fleet and Airflow, on loopback.

Used by `make up`, by the demo and by the tests. Nothing of it outlives the process that started
it, and nothing of it is a service of the machine.
"""
