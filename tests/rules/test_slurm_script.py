"""slurm.sh without SLURM and without Ray: what it starts, in which order, and how it ends.

`make test-cluster` runs the real thing on two hosts.
"""

import os
import re
import shutil
import subprocess

import pytest

from study.base.paths import ROOT

SCRIPT = ROOT / "slurm.sh"

# srun runs its command here; every stand-in writes down what it was asked for.
SRUN = """#!/bin/bash
echo "srun $*" >> "$CALLS"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
# A head leaves its address; both stay until they are told to end, and say so.
RAY = """#!/bin/bash
echo "ray $*" >> "$CALLS"
echo "env $RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH $OMP_NUM_THREADS" >> "$CALLS"
stat -c 'token %a %s' "$RAY_AUTH_TOKEN_PATH" >> "$CALLS"
case "$*" in
  status*) grep '^ready' "$CALLS" | sed 's/^/ 1 node_/'; exit ;;
esac
kind=worker
for word in "$@"; do
  case $word in
    --temp-dir=*) mkdir -p "${word#*=}"; folder=${word#*=} ;;
    --head) kind=head ;;
  esac
done
stat -c 'folder %a' "${folder%/ray}" >> "$CALLS"
trap 'echo "ended $kind" >> "$CALLS"; kill $!; exit 0' TERM
sleep 100 &
echo "ready $kind" >> "$CALLS"
[ "$kind" = head ] && echo 192.0.2.7:4321 > "$folder/ray_current_cluster"
wait
"""
PYTHON = """#!/bin/bash
[ "$1" = -c ] && { echo 23456; exit; }
echo "study $*" >> "$CALLS"
exit ${STUDY_CODE:-0}
"""
# The script looks every two seconds; here everything is there at once.
SLEEP = """#!/bin/bash
[ "$1" = 2 ] && set -- 0.05
exec /bin/sleep "$@"
"""
SCONTROL = "#!/bin/bash\necho node1; echo node2; echo node3\n"


@pytest.fixture
def job(tmp_path):
    """Runs the script as a job of three nodes; gives the process and the lines of all calls."""
    (tmp_path / "project" / "study").mkdir(parents=True)
    (tmp_path / "project" / "study" / "run_tune.py").touch()
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "activate").write_text(f"PATH={venv}:$PATH\n")
    tools = {"srun": SRUN, "ray": RAY, "python": PYTHON, "scontrol": SCONTROL, "sleep": SLEEP}
    for name, text in tools.items():
        (venv / name).write_text(text)
        (venv / name).chmod(0o755)

    def run(*words, **settings):
        env = {
            "PATH": f"{venv}:/usr/bin:/bin", "HOME": str(tmp_path / "home"),
            "CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "77",
            "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "8",
            "SLURM_SUBMIT_DIR": str(tmp_path / "project"),
            "BIRDSONG_VENV": str(tmp_path / "venv"), "BIRDSONG_TMP": str(tmp_path), **settings,
        }  # fmt: skip
        done = subprocess.run(
            ["bash", str(SCRIPT), *words],
            env={name: value for name, value in env.items() if value},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        calls = tmp_path / "calls"
        return done, calls.read_text().splitlines() if calls.exists() else []

    run.folder = tmp_path
    return run


def test_script_is_sound():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_study_runs_on_a_cluster_of_all_nodes(job):
    done, calls = job("--preset", "full", "search.n_trials=3")
    assert done.returncode == 0, done.stderr
    (head,) = [call for call in calls if call.startswith("ray start --head")]
    workers = [call for call in calls if call.startswith("ray start --address")]
    assert len(workers) == 2
    assert all("--address=192.0.2.7:4321" in worker for worker in workers)
    for node, command in [("node1", "--head"), ("node2", "--address"), ("node3", "--address")]:
        assert [c for c in calls if f"--nodelist={node} " in c and f"ray start {command}" in c]
    study = "study study/run_tune.py --preset full search.n_trials=3 --address 192.0.2.7:4321"
    assert calls.index(head) < calls.index(workers[0]) < calls.index(study)
    for call in (head, *workers):
        assert "--num-cpus=8" in call


def test_no_port_is_fixed(job):
    _, calls = job()
    for call in calls:
        if call.startswith("ray start"):
            ports = dict(re.findall(r"--([\w-]*port)=(\d+)", call))
            client = ports.pop("ray-client-server-port", None)
            assert (client == "23456") == ("--head" in call)  # asked of the system
            always = {"min-worker-port", "max-worker-port", "dashboard-agent-listen-port"}
            assert always <= set(ports)
            assert set(ports.values()) == {"0"}  # chosen by the system
            assert ("--include-dashboard=false" in call) == ("--head" in call)


def test_token_and_folders_are_private_and_of_this_job(job):
    _, calls = job()
    token = job.folder / "home" / ".ray" / "birdsong-77.token"
    assert {call for call in calls if call.startswith("env")} == {f"env token {token} 1"}
    assert {call for call in calls if call.startswith("token")} == {"token 600 64"}
    assert {call for call in calls if call.startswith("folder")} == {"folder 700"}


@pytest.mark.parametrize("code", ["0", "1", "2"])
def test_all_is_ended_and_removed_whatever_the_study_gives(job, code):
    done, calls = job(STUDY_CODE=code)
    assert done.returncode == int(code)
    ended = [call for call in calls if call.startswith("ended")]
    assert ended == ["ended worker", "ended worker", "ended head"]
    assert list((job.folder / "home" / ".ray").iterdir()) == []
    assert not (job.folder / "birdsong-77").exists()
    left = subprocess.run(["pgrep", "-f", str(job.folder)], capture_output=True, check=False)
    assert left.stdout == b""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SLURM_JOB_ID": ""}, "submit this file with sbatch"),
        ({"SLURM_SUBMIT_DIR": "/usr"}, "there is no study/run_tune.py in /usr"),
        ({"BIRDSONG_VENV": "/nowhere"}, "there is no /nowhere/bin/ray"),
    ],
)
def test_what_is_missing_is_named(job, settings, message):
    done, calls = job(**settings)
    assert done.returncode != 0
    assert message in done.stderr
    assert calls == []


def test_memory_of_the_job_bounds_shared_objects(job):
    _, calls = job(SLURM_MEM_PER_NODE="64000")
    assert all("--object-store-memory=19200000000" in c for c in calls if c.startswith("ray start"))


def test_lines_for_sbatch_stand_before_every_command():
    """SLURM reads no #SBATCH line behind the first command."""
    lines = SCRIPT.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert max(options) < first
