# Airflow with Breakfix, from the same lock as everything else.
FROM python:3.11-slim-bookworm

WORKDIR /opt/breakfix
COPY requirements.txt pyproject.toml LICENSE ./
COPY include include

# uv takes its own version and hashes from the lock too; --constraints checks every package's hashes.
RUN awk '/^[^ ]/ {keep = /^uv==/} keep' requirements.txt > /tmp/uv.txt \
    && pip install --no-cache-dir --require-hashes -r /tmp/uv.txt \
    && uv pip install --system --no-cache --compile-bytecode \
        --constraints requirements.txt --build-constraints requirements.txt '.[airflow,api]' \
    && rm /tmp/uv.txt

COPY dags dags
COPY plugins plugins

RUN useradd --system --uid 50000 --home-dir /opt/airflow --create-home airflow
USER airflow
ENV AIRFLOW_HOME=/opt/airflow PYTHONUNBUFFERED=1
