"""The server of a laboratory, as mlflow/compose.yaml starts it: doors, users, backup, upgrade."""

import contextlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from models.mdgan.checkpoints import save_decoder
from study.base.paths import ROOT
from study.fetch_model import fetch
from study.tracking.model_registry import model_of
from study.tracking.tracker import RunIdentity, Tracker
from tests.helpers.lab_server import LabServer, lab_server, missing
from tests.helpers.mlflow_writers import run_writers
from tests.helpers.tiny_mdgan import build
from tests.helpers.tracked import show

LACK = missing()
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(bool(LACK), reason=f"the laboratory's server: {LACK}"),
]

API = "/api/2.0/mlflow"


@dataclass(frozen=True)
class User:
    """Someone who asks the server, through the proxy.

    Attributes:
        server: asked.
        name, password: None asks without a password.
    """

    server: LabServer
    name: str | None = None
    password: str = ""

    def ask(self, method: str, path: str, body=None, base: str | None = None, **headers: str):
        """The answer to a request."""
        return requests.request(
            method, (base or self.server.url) + path, json=body, headers=headers, timeout=60,
            auth=(self.name, self.password) if self.name else None, allow_redirects=False,
            verify=str(self.server.secret("tls.crt")),
        )  # fmt: skip

    def status(self, method: str, path: str, body=None) -> int:
        """Its HTTP status."""
        return self.ask(method, path, body).status_code

    def run_code(self, code: str) -> str:
        """What a client says that runs with this user's settings."""
        settings = self.server.client_settings(self.name or "", self.password)
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.server.environment(**settings),
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def server():
    with lab_server() as running:
        yield running


@pytest.fixture(scope="module")
def anybody(server):
    return User(server)


@pytest.fixture(scope="module")
def admin(server):
    return User(server, "admin", server.password())


@pytest.fixture(scope="module")
def writer(server):
    return User(server, "study-computer", server.add_user("study-computer", "writer"))


@pytest.fixture(scope="module")
def other_writer(server):
    return User(server, "other", server.add_user("other", "writer"))


@pytest.fixture(scope="module")
def reader(server):
    return User(server, "anna", server.add_user("anna", "reader"))


@pytest.fixture(scope="module")
def written(writer, tmp_path_factory):
    """Experiment and run of the writer, made by MLflow's client with nothing but its settings."""
    file = tmp_path_factory.mktemp("written") / "song.txt"
    file.write_text("la la")
    code = f"""
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.create_experiment("written")
run = client.create_run(experiment).info.run_id
client.log_metric(run, "loss", 0.25, step=3)
client.log_artifact(run, {str(file)!r})
print(experiment, run)
"""
    return tuple(writer.run_code(code).splitlines()[-1].split())


# --- Without a password -------------------------------------------------------------------------

DOORS = [
    ("GET", "/"),
    ("GET", "/static-files/index.html"),
    ("GET", "/static-files/../api/2.0/mlflow/users/list"),
    ("GET", "/favicon.ico"),
    ("GET", "/version"),
    ("GET", "/healthy"),
    ("GET", "/signup"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/get-artifact?run_uuid=1&path=x"),
    ("GET", "/model-versions/get-artifact?name=x&version=1&path=x"),
    ("POST", "/graphql"),
    ("POST", f"{API}/runs/search"),
    ("POST", f"{API}/runs/create"),
    ("POST", f"{API}/runs/log-batch"),
    ("GET", f"{API}/metrics/get-history?run_id=1&metric_key=x"),
    ("GET", f"{API}/experiments/search"),
    ("POST", f"{API}/experiments/delete"),
    ("GET", f"{API}/registered-models/search"),
    ("GET", f"{API}/users/list"),
    ("POST", f"{API}/users/create"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=1"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=1&path=x"),
    ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id=1&metric_key=x"),
    ("GET", "/ajax-api/3.0/mlflow/server-info"),
    ("POST", "/ajax-api/3.0/jobs/search"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
    ("POST", "/gateway/mlflow/v1/chat/completions"),
    ("POST", "/v1/traces"),
]


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_no_door_opens_without_a_password(anybody, method, path):
    assert anybody.status(method, path, None if method == "GET" else {}) in (401, 403)


def listening(server):
    """Address and program of every TCP port that a process of the server listens at."""
    found = set()
    for started in server.running.values():
        top = psutil.Process(started.pid)
        for process in [top, *top.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {
                    (*one.laddr, process.name().partition(":")[0])
                    for one in process.net_connections("tcp")
                    if one.status == psutil.CONN_LISTEN
                }
    return sorted(found, key=lambda door: door[1])


def knock(server, host, port):
    """What a port says to someone who has no password."""
    if port == server.database_port:
        import psycopg  # the tests are skipped where it is missing

        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(host=host, port=port, user="mlflow", dbname="mlflow", connect_timeout=9)
        return str(refused.value).rpartition("failed: ")[2].strip()
    scheme = "https" if port == server.port else "http"
    url = f"{scheme}://localhost:{port}/"
    answer = requests.get(url, timeout=60, verify=str(server.secret("tls.crt")))
    return answer.status_code


def test_every_port_refuses_who_has_no_password(server, capfd):
    said = {door: knock(server, *door[:2]) for door in listening(server)}
    with capfd.disabled():
        print("\nlistens on        process      without a password")
        for (host, port, name), answer in said.items():
            print(f"{f'{host}:{port}':16}  {name:11}  {answer}")
    assert {port for _, port, _ in said} == {server.port, server.mlflow_port, server.database_port}
    assert {host for host, _, _ in said} == {"127.0.0.1"}
    for (_, port, _), answer in said.items():
        assert answer in (401, 403) or (port == server.database_port and "password" in answer)


def test_health_alone_opens_and_says_nothing(anybody):
    answer = anybody.ask("GET", "/health")
    assert (answer.status_code, answer.text) == (200, "OK")


LIST_ROUTES = """
import json, os
from mlflow.server import app
from mlflow.server.auth import create_app
native = create_app().openapi()["paths"]
routes = {(method.upper(), path) for path, methods in native.items() for method in methods}
for rule in app.url_map.iter_rules():
    routes |= {(method, rule.rule) for method in rule.methods - {"OPTIONS", "HEAD"}}
print(json.dumps(sorted(routes)))
"""


def test_no_route_of_this_mlflow_opens_without_a_password(server, anybody, tmp_path):
    """Also those that nobody thought of: MLflow is asked which there are."""
    ini = (server.mlflow / "auth.ini").read_text()
    (tmp_path / "auth.ini").write_text(ini.replace("postgresql:///", f"sqlite:///{tmp_path}/"))
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "x" * 16,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    listed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIST_ROUTES], env=server.environment(**settings),
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    routes = json.loads(listed.stdout.splitlines()[-1])
    assert len(routes) > 400
    filled = [(method, re.sub(r"<[^>]*>|\{[^}]*\}", "1", path)) for method, path in routes]
    assert ["GET", "/api/2.0/mlflow/experiments/search"] in routes
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(server.secret("tls.crt"))
        answers = {
            (method, path): session.request(
                method, server.url + path, json=None if method == "GET" else {},
                timeout=60, allow_redirects=False,
            ).status_code
            for method, path in filled
        }  # fmt: skip
    opened = {door for door, status in answers.items() if status not in (401, 403)}
    assert opened == {("GET", "/health")}


def test_a_wrong_password_opens_nothing(server, reader):
    for name, password in [("anna", "wrong"), ("nobody", reader.password), ("admin", "")]:
        for path in ("/", "/static-files/x", f"{API}/experiments/search"):
            assert User(server, name, password).status("GET", path) == 401


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1", "localhost.evil.example.org"])
def test_a_foreign_host_name_is_refused(server, admin, host):
    for base in (server.url, server.direct):  # the proxy, and MLflow itself behind it
        answer = admin.ask("GET", f"{API}/users/list", base=base, Host=host)
        assert answer.status_code == 403, base
        assert "Host" in answer.text


def test_a_page_from_elsewhere_cannot_use_the_password_in_the_browser(server, admin):
    path, body = f"{API}/runs/search", {"experiment_ids": ["0"]}
    assert admin.ask("POST", path, body, Origin=server.url).status_code == 200
    assert admin.ask("POST", path, body, Origin="https://evil.example.org").status_code == 403


# --- Users --------------------------------------------------------------------------------------


def test_the_client_writes_and_reads_with_name_and_password_of_its_environment(writer, written):
    code = f"""
from mlflow import MlflowClient
run = MlflowClient().get_run({written[1]!r})
print(run.data.metrics, [f.path for f in MlflowClient().list_artifacts({written[1]!r})])
"""
    assert writer.run_code(code) == "{'loss': 0.25} ['song.txt']"


def test_a_writer_deletes_nothing_and_rules_nobody(writer, written):
    experiment, run = written
    artifacts = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}"
    grants = "/api/3.0/mlflow/users/permissions"
    everything = {"username": "study-computer", "resource_type": "run", "resource_id": "*"}
    for method, path, body in [
        ("POST", f"{API}/experiments/delete", {"experiment_id": experiment}),
        ("POST", f"{API}/runs/delete", {"run_id": run}),
        ("DELETE", f"{artifacts}/{run}/artifacts/song.txt", None),
        ("DELETE", f"{artifacts}/{run}", None),
        ("DELETE", artifacts, None),
        ("POST", f"{API}/users/create", {"username": "new", "password": "x" * 20}),
        ("DELETE", f"{API}/users/delete", {"username": "admin"}),
        ("PATCH", f"{API}/users/update-admin", {"username": "study-computer", "is_admin": True}),
        ("PATCH", f"{API}/users/update-password", {"username": "admin", "password": "x" * 20}),
        ("POST", f"{grants}/grant", {**everything, "permission": "MANAGE"}),
        ("POST", f"{grants}/revoke", everything),
    ]:
        assert writer.status(method, path, body) == 403, path
    assert writer.status("GET", f"{API}/runs/get?run_id={run}") == 200


def test_a_writer_cannot_delete_a_model_it_registered(writer, written):
    experiment, run = written
    model = {"name": "decoder"}
    assert writer.status("POST", f"{API}/registered-models/create", model) == 200
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    version = {**model, "source": source, "run_id": run}
    assert writer.status("POST", f"{API}/model-versions/create", version) == 200
    for path, body in [("registered-models", model), ("model-versions", {**model, "version": "1"})]:
        assert writer.status("DELETE", f"{API}/{path}/delete", body) == 403, path


def test_a_study_registers_its_decoder_and_a_reader_fetches_it(
    server, writer, reader, monkeypatch, tmp_path
):
    trained = tmp_path / "best"
    trained.mkdir()
    save_decoder(build(), trained, {})
    identity = RunIdentity("trial", trial_id="trial-000")
    settings = server.client_settings(writer.name, writer.password)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    tracker = Tracker(server.url, "registers", {"study": "registers"}, tmp_path / "sent", ["lr"])
    tracker.start_study({}, "study", {"lr": 1})
    model = model_of(trained, "songs-decoder", {})
    show(tracker, identity, model=model, status="FINISHED")
    left = tracker.close(60)
    assert left == 0
    (sent,) = (tmp_path / "sent").glob("*.json")
    assert '"refused": []' in sent.read_text()

    for name, value in server.client_settings(reader.name, reader.password).items():
        monkeypatch.setenv(name, value)
    fetch(server.url, "songs-decoder", None, tmp_path / "fetched")
    names = {path.name for path in trained.iterdir()}
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == names


def test_a_writer_has_no_part_in_what_others_wrote(other_writer, written):
    experiment, run = written
    metric = {"run_id": run, "key": "loss", "value": 0, "timestamp": 1, "step": 0}
    for method, path, body in [
        ("GET", f"{API}/runs/get?run_id={run}", None),
        ("POST", f"{API}/runs/log-metric", metric),
        ("POST", f"{API}/runs/create", {"experiment_id": experiment}),
        ("POST", f"{API}/experiments/update", {"experiment_id": experiment, "new_name": "x"}),
        ("GET", f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/song.txt", None),
        ("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/song.txt", None),
    ]:
        assert other_writer.status(method, path, body) == 403, path
    found = other_writer.ask("POST", f"{API}/runs/search", {"experiment_ids": [experiment]})
    assert found.json() == {}


def test_a_reader_sees_everything_and_changes_nothing(reader, written):
    experiment, run = written
    assert reader.status("GET", f"{API}/runs/get?run_id={run}") == 200
    song = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/song.txt"
    assert reader.ask("GET", song).text == "la la"
    metric = {"run_id": run, "key": "loss", "value": 0, "timestamp": 1, "step": 0}
    for method, path, body in [
        ("POST", f"{API}/runs/log-metric", metric),
        ("POST", f"{API}/runs/create", {"experiment_id": experiment}),
        ("POST", f"{API}/runs/delete", {"run_id": run}),
        ("POST", f"{API}/experiments/delete", {"experiment_id": experiment}),
        ("PUT", song, None),
    ]:
        assert reader.status(method, path, body) == 403, path


def test_a_reader_can_make_an_experiment_but_fill_and_delete_none(reader):
    """That it can be made is MLflow's rule; docs and README say so."""
    made = reader.ask("POST", f"{API}/experiments/create", {"name": "of a reader"})
    experiment = made.json()["experiment_id"]
    run = reader.ask("POST", f"{API}/runs/create", {"experiment_id": experiment}).json()
    run_id = run["run"]["info"]["run_id"]
    metric = {"run_id": run_id, "key": "loss", "value": 0, "timestamp": 1, "step": 0}
    for path, body in [
        ("runs/log-metric", metric),
        ("runs/delete", {"run_id": run_id}),
        ("experiments/delete", {"experiment_id": experiment}),
    ]:
        assert reader.status("POST", f"{API}/{path}", body) == 403, path


@pytest.mark.parametrize("location", ["file:///etc", "/run/secrets", "mlflow-artifacts:/1"])
def test_nobody_chooses_where_files_of_an_experiment_lie(writer, location):
    body = {"name": f"at {location}", "artifact_location": location}
    assert writer.status("POST", f"{API}/experiments/create", body) == 400


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/message",
        "/api/3.0/mlflow/gateway/secrets/create",
        f"{API}/webhooks",
        "/ajax-api/3.0/jobs/",
    ],
)
def test_parts_that_call_other_servers_are_closed_to_everybody(admin, path):
    assert admin.status("POST", path, {}) == 403


def test_a_new_password_holds_at_once_and_a_user_can_be_removed(server):
    first = User(server, "leaver", server.add_user("leaver", "reader"))
    me = f"{API}/users/current"
    assert first.status("GET", me) == 200
    said = server.run([server.mlflow / "users.sh", "password", "leaver"]).stdout
    assert first.status("GET", me) == 401
    second = User(server, "leaver", re.search(r"password +(\S+)", said)[1])
    assert second.status("GET", me) == 200
    server.run([server.mlflow / "users.sh", "remove", "leaver"])
    assert second.status("GET", me) == 401
    listed = server.run([server.mlflow / "users.sh", "list"]).stdout.split()
    assert "leaver" not in listed
    assert "admin" in listed


def test_a_refusal_of_the_server_is_told_without_the_hash_of_a_password(server, reader):
    done = server.run([server.mlflow / "users.sh", "add", "anna", "reader"], check=False)
    assert done.returncode == 1
    assert "anna) already exists" in done.stderr
    assert "scrypt" not in done.stderr


# --- Secrets ------------------------------------------------------------------------------------


def test_no_list_of_processes_and_no_log_shows_a_password(server, writer, written):
    names = ["admin_password", "database_password", "postgres_password", "flask_secret_key"]
    hidden = [server.password(name) for name in names] + [writer.password]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended
        assert not [secret for secret in hidden if secret in command], process
    for log in server.folder.glob("*.log"):
        assert not [secret for secret in hidden if secret in log.read_text()], log


def test_mlflow_s_own_account_of_postgresql_is_no_superuser(server):
    rights = server.query("SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles "
                          "WHERE rolname = 'mlflow'")  # fmt: skip
    assert rights == [["f", "f", "f"]]


# --- Loss of the server -------------------------------------------------------------------------


@pytest.mark.integration
def test_writers_lose_nothing_when_the_server_is_killed(server):
    done = run_writers(server, n_clients=2, n_metrics=520, kill_at=(0.3,), away_s=1.0)
    assert done.n_kills == 1
    assert (done.found, done.duplicates) == (done.expected, 0)
    assert done.longest_call_s < 5


NUMBERS = """
SELECT experiments.name, runs.run_uuid, runs.status, metrics.key, metrics.step, metrics.value
FROM experiments JOIN runs USING (experiment_id) LEFT JOIN metrics USING (run_uuid)
ORDER BY 1, 2, 4, 5
"""


@pytest.mark.integration
def test_a_copy_becomes_the_same_records_on_a_new_server(server, writer, written, tmp_path):
    server.pretend_docker()
    backup = server.run([server.mlflow / "backup.sh", tmp_path / "copies"], as_account=False)
    copy = Path(backup.stdout.strip())
    before = server.query(NUMBERS)
    # What is written after the copy is not in it.
    late = {"experiment_id": written[0]}
    assert writer.status("POST", f"{API}/runs/create", late) == 200

    with lab_server(whole=False) as new:
        new.pretend_docker()
        restore = new.mlflow / "restore.sh"
        song = next(copy.glob("artifacts/**/song.txt"))
        song.write_text("la lo")
        refused = new.run([restore, copy], check=False, as_account=False)
        assert refused.returncode == 1
        assert "song.txt" in refused.stdout + refused.stderr
        assert "damaged" in refused.stderr
        song.write_text("la la")

        new.run([restore, copy], as_account=False)
        again = new.run([restore, copy], check=False, as_account=False)
        assert "not empty" in again.stderr

        new.start_mlflow()
        new.start_proxy()
        assert len(before) > 1
        assert new.query(NUMBERS) == before
        # Users and their rights came along.
        same = User(new, writer.name, writer.password)
        experiment, run = written
        assert same.ask("GET", f"{API}/runs/get?run_id={run}").status_code == 200
        path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/song.txt"
        assert same.ask("GET", path).text == "la la"
        assert same.status("POST", f"{API}/runs/delete", {"run_id": run}) == 403


# --- Another version ----------------------------------------------------------------------------

AN_OLDER_DATABASE = """
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
engine = sqlalchemy.create_engine("postgresql:///mlflow")
Base.metadata.create_all(engine)
config = _get_alembic_config("postgresql:///mlflow")
head = ScriptDirectory.from_config(config).get_revision("head")
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, head.down_revision)
    text = "INSERT INTO experiments (name, lifecycle_stage) VALUES ('of 2026', 'active')"
    connection.execute(sqlalchemy.text(text))
print(head.revision)
"""


@pytest.mark.integration
def test_a_database_of_an_older_mlflow_is_brought_to_this_version():
    with lab_server(whole=False) as old:
        settings = {**old.server_environment(), "PGPASSFILE": str(old.secret("pgpass"))}
        make = [sys.executable, "-c", AN_OLDER_DATABASE]
        newest = old.run(make, as_account=False, **settings).stdout.split()[-1]
        version = "SELECT version_num FROM alembic_version"
        assert old.query(version) != [[newest]]
        old.run([old.mlflow / "start_server.sh", "upgrade"], as_account=False, **settings)
        assert old.query(version) == [[newest]]
        assert old.query("SELECT name FROM experiments") == [["of 2026"]]
        users = "SELECT count(*) FROM users"
        assert old.query(users, "mlflow_users") == [["0"]]  # the tables are there
