"""What speaks Airflow: triggers, operators, connections and the approval reader."""
