#!/bin/sh
# Make Airflow's tables, the pools that throttle work, and the passwords of its users.
set -eu
airflow db migrate
for pool in breakfix_drain breakfix_repair breakfix_validate; do
    airflow pools set "$pool" 8 "A throttle for work"
done
umask 077
python - >"$AIRFLOW_HOME/passwords.json" <<'PYTHON'
import json
import os

print(
    json.dumps(
        {
            "admin": os.environ["AIRFLOW_ADMIN_PASSWORD"],
            "oncall": os.environ["AIRFLOW_ONCALL_PASSWORD"],
            "breakfix": os.environ["BREAKFIX_AIRFLOW_PASSWORD"],
        }
    )
)
PYTHON
