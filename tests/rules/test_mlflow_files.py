"""The files in mlflow/ that start the server of a laboratory, read without starting it."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from study.base.paths import ROOT

MLFLOW = ROOT / "mlflow"
SCRIPTS = sorted(MLFLOW.glob("*.sh"))
# make_secrets.sh refuses root: there, this account runs it.
AS_NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((MLFLOW / "compose.yaml").read_text())


def pins(path):
    """Versions that a file of requirements states."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)$", path.read_text(), re.MULTILINE)
    return {name.lower(): version for name, version in found}


# --- compose.yaml -------------------------------------------------------------------------------


def test_the_server_has_the_mlflow_of_the_study(compose):
    wanted = pins(ROOT / "requirements.txt")["mlflow"]
    assert pins(MLFLOW / "requirements.txt")["mlflow"] == wanted
    assert compose["services"]["mlflow"]["image"].split(":")[1] == wanted


def test_the_image_gets_nothing_that_was_not_locked():
    """Every package of the server by its hash: pip looks for no other."""
    dockerfile = (MLFLOW / "Dockerfile").read_text()
    (install,) = re.findall(r"^RUN pip install (.*)$", dockerfile, re.MULTILINE)
    assert {"--no-deps", "--require-hashes"} <= set(install.split())
    assert install.endswith("-r /opt/mlflow/requirements.lock")
    assert "COPY requirements.lock /opt/mlflow/" in dockerfile


def test_only_the_proxy_can_be_reached_and_only_it_can_reach_out(compose):
    services, networks = compose["services"], compose["networks"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert len(services["proxy"]["ports"]) == 1
    assert not any("network_mode" in service for service in services.values())
    outside = {name for name, network in networks.items() if not network.get("internal")}
    assert {name for name, s in services.items() if outside & set(s["networks"])} == {"proxy"}
    # The database is MLflow's alone.
    assert not set(services["proxy"]["networks"]) & set(services["postgres"]["networks"])


@pytest.mark.parametrize("name", ["postgres", "mlflow", "proxy"])
def test_every_container_is_closed_and_watched(compose, name):
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith("${RUN_AS:?")
    assert service["healthcheck"]["test"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert not re.search(r":latest$|^[^:]+$", service["image"])
    writable = [v for v in service["volumes"] if not v.endswith(":ro")]
    assert all(volume.startswith("./server/") for volume in writable)


def test_secrets_are_files_that_make_secrets_makes_and_git_ignores(compose):
    made = (MLFLOW / "make_secrets.sh").read_text()
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
        assert re.search(rf"\b{re.escape(name)}\b", made), name
    for path in ["secrets/pgpass", "server/database/x", "server/artifacts/x", ".env", "client.env"]:
        command = ["git", "check-ignore", "--quiet", f"mlflow/{path}"]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, path
    # The image gets what .dockerignore lets through: no secret.
    rules = [line for line in (MLFLOW / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert rules == ["*", "!auth.ini", "!requirements.lock", "!start_server.sh"]


def test_each_container_gets_the_secrets_it_needs_and_none_in_its_environment(compose):
    given = {name: set(service["secrets"]) for name, service in compose["services"].items()}
    assert given == {
        "postgres": {"postgres_password", "database_password"},
        "mlflow": {"pgpass", "admin_password", "flask_secret_key"},
        "proxy": {"tls.crt", "tls.key"},
    }
    for service in compose["services"].values():
        for key, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD|SECRET|KEY|TOKEN", key) or value.startswith(
                "/run/secrets/"
            ), key


def test_compose_accepts_the_file(tmp_path):
    folder = tmp_path / "mlflow"
    shutil.copytree(MLFLOW, folder, ignore=shutil.ignore_patterns("*.db*", "artifacts", "server"))
    (folder / ".env").write_text("PUBLIC_HOST=localhost\nPUBLIC_PORT=443\nRUN_AS=1000:1000\n")
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        version = subprocess.run([*command, "version"], capture_output=True, check=False)
        if version.returncode != 0:
            continue  # docker without its part compose
        asked = subprocess.run(
            [*command, "-f", folder / "compose.yaml", "config"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert asked.returncode == 0, asked.stderr
        assert set(yaml.safe_load(asked.stdout)["services"]) == {"postgres", "mlflow", "proxy"}
        return
    pytest.skip("neither docker compose nor docker-compose is installed")


def test_users_have_no_right_until_one_is_given():
    text = (MLFLOW / "auth.ini").read_text()
    assert re.search(r"^default_permission = NO_PERMISSIONS$", text, re.MULTILINE)
    assert not re.search(r"^admin_password|^database_uri.*@", text, re.MULTILINE)


# --- Scripts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script):
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, script], check=True)


@pytest.fixture
def copy():
    """The scripts, in a folder that another account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="mlflow-files-"))
    for script in SCRIPTS:
        shutil.copy(script, folder)
    if AS_NOBODY:
        os.chown(folder, AS_NOBODY["user"], AS_NOBODY["group"])
    yield folder
    shutil.rmtree(folder)


def make_secrets(folder, *arguments, **identity):
    return subprocess.run(
        [folder / "make_secrets.sh", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, **(identity or AS_NOBODY),
    )  # fmt: skip


def contents(folder):
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_secrets_are_made_once_and_for_one_account_alone(copy):
    done = make_secrets(copy, "mlflow.example.org", "8443")
    assert done.returncode == 0, done.stderr
    made = contents(copy)
    assert set(made) == {
        "admin_password", "database_password", "postgres_password", "flask_secret_key",
        "pgpass", "tls.crt", "tls.key",
    }  # fmt: skip
    assert not [name for name, text in made.items() if text.strip() in done.stdout]
    for path in [copy / ".env", *(copy / "secrets").iterdir()]:
        assert path.stat().st_mode & 0o777 == 0o600, path
    for folder in ["secrets", "server/database", "server/artifacts"]:
        assert (copy / folder).stat().st_mode & 0o777 == 0o700, folder
    settings = dict(line.split("=") for line in (copy / ".env").read_text().split())
    owner = f"{copy.stat().st_uid}:{(copy / '.env').stat().st_gid}"
    assert settings == {"PUBLIC_HOST": "mlflow.example.org", "PUBLIC_PORT": "8443",
                        "RUN_AS": owner}  # fmt: skip
    assert made["pgpass"] == f"*:*:*:mlflow:{made['database_password']}"
    assert len(set(made.values())) == len(made)

    (copy / "secrets" / "tls.crt").write_text("the institute's\n")
    make_secrets(copy, "mlflow.example.org", "443")
    assert contents(copy) == {**made, "tls.crt": "the institute's\n"}


@pytest.mark.parametrize(
    "arguments",
    [(), ("two words",), ("a;b",), ("-x",), ("$(id)",), ("host", "0"), ("host", "65536"),
     ("host", "x"), ("host", "1", "2")],
)  # fmt: skip
def test_strange_arguments_are_refused_before_anything_is_made(copy, arguments):
    done = make_secrets(copy, *arguments)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not (copy / "secrets").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_root_does_not_become_the_owner_of_the_records(copy):
    done = make_secrets(copy, "localhost", user=0)
    assert done.returncode == 1
    assert "not as root" in done.stderr


def test_a_missing_secret_is_named(copy):
    (copy / "secrets").mkdir()
    (copy / "secrets" / "flask_secret_key").touch()
    done = subprocess.run(
        [copy / "start_server.sh"], capture_output=True, text=True, check=False,
        env={**os.environ, "SECRETS_DIR": str(copy / "secrets"), "PUBLIC_HOST": "localhost"},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{copy}/secrets/flask_secret_key is missing or empty" in done.stderr


@pytest.mark.parametrize(
    ("port", "origin"),
    [("443", "https://mlflow.example.org"), ("8443", "https://mlflow.example.org:8443")],
)
def test_the_server_knows_its_name_and_runs_no_jobs(copy, port, origin):
    """As browsers write the name: without the usual port."""
    (copy / "secrets").mkdir()
    for name in ("flask_secret_key", "admin_password"):
        (copy / "secrets" / name).write_text(f"the {name}")
    (copy / "mlflow").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\nenv\n')
    (copy / "mlflow").chmod(0o755)
    settings = {"SECRETS_DIR": str(copy / "secrets"), "PUBLIC_HOST": "mlflow.example.org",
                "PUBLIC_PORT": port, "PATH": f"{copy}:{os.environ['PATH']}"}  # fmt: skip
    done = subprocess.run(
        [copy / "start_server.sh"], capture_output=True, text=True, check=True, env=settings
    )
    said = done.stdout.splitlines()
    options = dict(zip(said, said[1:], strict=False))
    assert options["--cors-allowed-origins"] == origin
    assert options["--allowed-hosts"] == "mlflow.example.org,mlflow.example.org:*"
    assert options["--app-name"] == "basic-auth"
    assert options["--workers"] == "1"
    assert options["--host"] == "127.0.0.1"
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in said
    assert "MLFLOW_BASIC_AUTH_FAIL_CLOSED=true" in said
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY=the flask_secret_key" in said


def test_users_sh_takes_no_name_that_could_be_more_than_a_name(copy):
    (copy / "secrets").mkdir()
    (copy / "secrets" / "admin_password").write_text("x")
    (copy / ".env").write_text("PUBLIC_HOST=localhost\nPUBLIC_PORT=1\n")
    for name in ['a","is_admin":true,"b":"', "", "two words", "-x"]:
        done = subprocess.run(
            [copy / "users.sh", "add", name, "reader"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, name
        assert "letters, digits" in done.stderr


def test_installed_psycopg_is_the_pinned_one():
    pinned = pins(MLFLOW / "requirements.txt")
    assert set(pinned) == {"mlflow", "flask-wtf", "psycopg"}
    for name, version in pinned.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed: pip install -r mlflow/requirements.txt")
        assert installed == version, name
