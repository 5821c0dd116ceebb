-- The ledger has the database that the image makes; Airflow's own metadata is kept apart from it.
CREATE DATABASE airflow;
