"""The service user's client, and the runs that it starts."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from breakfix.errors import AirflowError, LedgerError, Refused, SettingsError
from breakfix.model import Case, RefusalReason
from breakfix_airflow.api import ATTEMPTS, AirflowApi, path_of
from breakfix_airflow.runs import AirflowCaseRuns
from breakfix_airflow.sweeps import branch_of, start_listed
from tests.airflow.fake_airflow import FakeAirflow
from tests.contract.ledger_builders import NOW, admit
from tests.fakes_ledger import FakeLedger


@pytest.fixture
def case() -> Case:
    return admit(FakeLedger(), "gpu-1")


# --------------------------------------------------------------------------- the client


def test_it_logs_in_once_for_many_calls(case):
    airflow = FakeAirflow()
    api = airflow.api()
    for _ in range(3):
        api.get("/dags/node_case")
    assert airflow.logins == 1


def test_a_token_that_has_expired_is_renewed(case):
    airflow = FakeAirflow()
    api = airflow.api()
    api.get("/dags/node_case")
    airflow.tokens.clear()
    assert api.get("/dags/node_case") == {"is_paused": False}
    assert airflow.logins == 2


def test_a_wrong_password_says_which_connection_to_mend():
    with pytest.raises(SettingsError, match="connection breakfix_airflow"):
        FakeAirflow().api(password="wrong").get("/dags/node_case")


def test_a_role_that_is_too_small_says_so():
    airflow = FakeAirflow()
    api = airflow.api()
    api.get("/dags/node_case")
    airflow.broken = [403]
    login_then_403 = [403, 201, 403]

    def answer(request):
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        return httpx.Response(login_then_403[0], json={"detail": "Forbidden"})

    api = AirflowApi("http://airflow", "breakfix", "x", transport=httpx.MockTransport(answer))
    with pytest.raises(SettingsError, match="role"):
        api.get("/dags/node_case")


@pytest.mark.parametrize(
    ("status", "is_transient"),
    [
        pytest.param(500, True, id="a server error may pass"),
        pytest.param(503, True, id="an overload may pass"),
        pytest.param(429, True, id="a rate limit may pass"),
        pytest.param(400, False, id="a wrong request does not"),
        pytest.param(422, False, id="a wrong body does not"),
    ],
)
def test_an_error_says_whether_asking_again_may_help(status, is_transient):
    airflow = FakeAirflow()
    api = airflow.api()
    api.get("/dags/node_case")
    airflow.broken = [status] * ATTEMPTS
    with pytest.raises(AirflowError, match=str(status)) as e:
        api.get("/dags/node_case")
    assert e.value.is_transient is is_transient


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_reading_is_asked_again_after_an_error_that_may_pass(status):
    airflow = FakeAirflow()
    airflow.broken = [status] * (ATTEMPTS - 1)
    assert airflow.api().get("/dags/node_case") == {"is_paused": False}


def test_a_run_is_started_once_though_the_first_answer_was_lost(case):
    airflow = FakeAirflow()
    api = airflow.api()
    api.get("/dags/node_case")
    airflow.lost = 1
    assert AirflowCaseRuns(api).start(case) is False  # the second time it exists already
    assert list(airflow.runs) == [f"{case.id}.1"]


def test_what_may_have_been_done_is_not_sent_twice():
    airflow = FakeAirflow()
    api = airflow.api()
    api.get("/dags/node_case")
    airflow.broken = [500]
    with pytest.raises(AirflowError, match="500"):
        api.send("PATCH", "/dags/node_case", {})
    assert airflow.seen.count(("PATCH", "/api/v2/dags/node_case")) == 1


def test_a_server_that_is_away_is_transient():
    def away(request):
        raise httpx.ConnectError("refused", request=request)

    api = AirflowApi("http://airflow", "u", "p", transport=httpx.MockTransport(away))
    with pytest.raises(AirflowError, match="does not answer") as e:
        api.get("/dags/node_case")
    assert e.value.is_transient


def test_an_answer_that_is_no_json_is_told_in_short():
    def page(request):
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        return httpx.Response(200, text="<html>" + "x" * 9999)

    api = AirflowApi("http://airflow", "u", "p", transport=httpx.MockTransport(page))
    with pytest.raises(AirflowError, match="no JSON") as e:
        api.get("/dags")
    assert len(str(e.value)) < 500


def test_names_are_quoted_in_paths():
    assert path_of("dags", "a/b", "x y", "~") == "/dags/a%2Fb/x%20y/~"


# --------------------------------------------------------------------------- runs


def test_a_run_is_named_after_case_and_fence(case):
    airflow = FakeAirflow()
    assert AirflowCaseRuns(airflow.api()).start(case) is True
    assert airflow.triggered["dag_run_id"] == f"{case.id}.1"
    assert airflow.triggered["conf"] == {"case_id": case.id, "fence": 1}
    assert airflow.triggered["logical_date"] is None


def test_a_run_that_exists_is_no_error_and_not_started_again(case):
    runs = AirflowCaseRuns(FakeAirflow().api())
    assert runs.start(case) is True
    assert runs.start(case) is False
    assert runs.start(replace(case, fence=2)) is True


def test_a_paused_dag_is_a_halt(case):
    airflow = FakeAirflow()
    airflow.is_paused = True
    with pytest.raises(Refused, match="counts as halt") as e:
        AirflowCaseRuns(airflow.api()).start(case)
    assert e.value.reason is RefusalReason.HALTED
    assert airflow.runs == {}


def test_a_missing_dag_says_so(case):
    airflow = FakeAirflow()
    airflow.has_dag = False
    with pytest.raises(AirflowError, match="is it deployed"):
        AirflowCaseRuns(airflow.api()).start(case)


def test_live_runs_are_those_queued_or_running_on_all_pages():
    airflow = FakeAirflow()
    airflow.runs = {f"c{n}.1": "running" for n in range(150)}
    airflow.runs |= {"q.1": "queued", "done.1": "success", "red.1": "failed"}
    live = AirflowCaseRuns(airflow.api()).live()
    assert len(live) == 151
    assert "q.1" in live
    assert not live & {"done.1", "red.1"}


# --------------------------------------------------------------------------- what a sweep hands on


class FakeRuns:
    def __init__(self, *, broken=()):
        self.started, self.broken = [], set(broken)

    def start(self, case):
        if case.node in self.broken:
            raise AirflowError("away", is_transient=True)
        is_new = case.run_id not in self.started
        self.started.append(case.run_id)
        return is_new

    def live(self):
        return frozenset(self.started)


def listed(*cases, fence=1):
    return [{"case_id": c.id, "fence": fence, "node": c.node} for c in cases]


def test_each_listed_case_is_started_once():
    ledger, runs = FakeLedger(), FakeRuns()
    a, b = admit(ledger, "gpu-1"), admit(ledger, "gpu-2")
    assert start_listed(ledger, runs, listed(a, b)) == [a.run_id, b.run_id]
    assert start_listed(ledger, runs, listed(a, b)) == []


def test_one_that_cannot_be_started_does_not_keep_the_others_from_it():
    ledger, runs = FakeLedger(), FakeRuns(broken={"gpu-1"})
    a, b = admit(ledger, "gpu-1"), admit(ledger, "gpu-2")
    with pytest.raises(AirflowError):
        start_listed(ledger, runs, listed(a, b))
    assert runs.started == [b.run_id]


def test_a_case_that_ended_or_changed_hands_is_not_started():
    ledger, runs = FakeLedger(), FakeRuns()
    a, b = admit(ledger, "gpu-1"), admit(ledger, "gpu-2")
    ledger.take_over(a.id, 1, actor="x", reason="r", now=NOW)
    ledger.end_case(b.id, 1, "aborted", actor="x", reason="r", now=NOW)
    assert start_listed(ledger, runs, listed(a, b)) == []


def test_a_case_that_the_ledger_does_not_know_is_an_error_not_a_run():
    runs = FakeRuns()
    with pytest.raises(LedgerError):
        start_listed(FakeLedger(), runs, [{"case_id": "forged", "fence": 1}])
    assert runs.started == []


@pytest.mark.parametrize(
    ("cases", "recommendations", "way"),
    [
        pytest.param([], [], "nothing", id="a healthy fleet needs nothing"),
        pytest.param([], ["gpu-1: ..."], "recommend", id="what is not done is recommended"),
        pytest.param([{}], ["gpu-1: ..."], "start_cases", id="admitted nodes are worked on"),
    ],
)
def test_the_sweep_goes_on_by_what_was_admitted(cases, recommendations, way):
    assert branch_of({"cases": cases, "recommendations": recommendations}) == way
