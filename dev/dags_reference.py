"""Writes docs/dags.md from the DAGs themselves: `python -m dev.dags_reference [--check]`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dags.md"
ORDER = (
    "fleet_sweep",
    "node_case",
    "reconcile_cases",
    "halt",
    "emergency",
    "change_canary",
    "learning_report",
)

HEAD = """# The DAGs

Written by `python -m dev.dags_reference` from `dags/`; change it there. Each manual is also what
Airflow shows on the DAG's page.
"""


def load_dags() -> dict[str, DAG]:
    """The DAGs of this repository by id; SystemExit with the errors of those that do not load."""
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp())
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"))
    if bag.import_errors:
        raise SystemExit("\n".join(bag.import_errors.values()))
    dags: dict[str, DAG] = bag.dags
    return dags


def page(dags: dict[str, DAG]) -> str:
    """The whole page, the DAGs in the order in which a node meets them."""
    names = [*ORDER, *sorted(set(dags) - set(ORDER))]
    return "\n".join([HEAD, *(_section(dags[name]) for name in names)])


def _section(dag: DAG) -> str:
    manual = (dag.doc_md or "").strip().replace("### ", "", 1)
    title, _, rest = manual.partition("\n")
    parts = [f"## `{dag.dag_id}`: {title[:1].lower()}{title[1:]}", "", rest.strip(), ""]
    if dag.params:
        parts += ["### Params of `" + dag.dag_id + "`", "", *_params(dag), ""]
    parts += ["### Tasks of `" + dag.dag_id + "`", "", *_tasks(dag), ""]
    return "\n".join(parts)


def _params(dag: DAG) -> list[str]:
    rows = ["| param | type | default | what |", "|---|---|---|---|"]
    for name in dag.params:
        param = dag.params.get_param(name)
        schema: dict[str, Any] = param.schema
        kind = schema.get("type", "")
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        default = param.value if param.value is not None else ""
        rows.append(f"| `{name}` | {kind} | {default} | {param.description or ''} |")
    return rows


def _tasks(dag: DAG) -> list[str]:
    rows = ["| task | goes to | pool | retries | what |", "|---|---|---|---|---|"]
    for task in dag.topological_sort():  # type: ignore[no-untyped-call]
        to = ", ".join(f"`{t}`" for t in sorted(task.downstream_task_ids)) or "the end"
        what = " ".join((task.doc_md or "").split())
        pool = "" if task.pool == "default_pool" else f"`{task.pool}`"
        rows.append(f"| `{task.task_id}` | {to} | {pool} | {task.retries} | {what} |")
    return rows


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is stale."""
    text = page(load_dags())
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text() == text:
            return 0
        print("docs/dags.md is stale. To do: python -m dev.dags_reference", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
