"""slurm.sh without SLURM and without Ray: what it starts, in which order, and how it ends.

`make test-cluster` runs the real thing on two hosts.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from study.base.paths import ROOT

SCRIPT = ROOT / "slurm.sh"

# The srun of tests/cluster, with this machine as every node; what is asked of it is written down.
SRUN = f"""#!/bin/bash
echo "srun $*" >> "$CALLS"
exec {ROOT}/tests/cluster/slurm_fakes/srun "$@"
"""
SSH = """#!/bin/bash
while [[ $1 == -* ]]; do [ "$1" = -i ] && shift; shift; done
exec bash -c "${*:2}"
"""
# A head leaves its address; both stay until they are interrupted, and say so.
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
trap 'echo "ended $kind" >> "$CALLS"; kill $!; exit 1' INT
sleep 100 &
sleep 0.2
echo "ready $kind" >> "$CALLS"
[ "$kind" = head ] && echo 192.0.2.7:4321 > "$folder/ray_current_cluster"
wait
"""
# The study ends at once, or takes a while to end after it was interrupted.
PYTHON = """#!/bin/bash
case "$*" in
  -c*node2) echo 192.0.2.7; exit ;;
  -c*) echo 23456; exit ;;
esac
[ -n "$STUDY_CODE" ] && echo "study $*" >> "$CALLS" && exit "$STUDY_CODE"
trap 'kill $!; sleep 0.5; echo "ended study" >> "$CALLS"; exit 130' INT
sleep 100 &
echo "study $*" >> "$CALLS"
wait
"""
# The script looks every two seconds; here everything is there at once.
SLEEP = """#!/bin/bash
[ "$1" = 2 ] && set -- 0.05
exec /bin/sleep "$@"
"""
SCONTROL = "#!/bin/bash\necho node1; echo node2; echo node3\n"
# The image holds what the environment of other tests holds.
APPTAINER = """#!/bin/bash
while [[ $1 != *.sif ]]; do shift; done
echo "inside $(basename "$1") ${*:2}" >> "$CALLS"
PATH=$IN_IMAGE:$PATH exec "${@:2}"
"""


def write_tools(folder, **texts):
    """Write executables into a new folder."""
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


@pytest.fixture
def job(tmp_path):
    """Runs the script as a job of three nodes; gives the process and the lines of all calls."""
    (tmp_path / "project" / "study").mkdir(parents=True)
    (tmp_path / "project" / "study" / "run_tune.py").touch()
    (tmp_path / "steps").mkdir()
    write_tools(tmp_path / "venv" / "bin", ray=RAY, python=PYTHON)
    write_tools(
        tmp_path / "tools",
        srun=SRUN, ssh=SSH, scontrol=SCONTROL, sleep=SLEEP, apptainer=APPTAINER,
    )  # fmt: skip
    calls = tmp_path / "calls"
    calls.touch()

    def start(*words, **settings):
        env = {
            "PATH": f"{tmp_path}/tools:/usr/bin:/bin", "HOME": str(tmp_path / "home"),
            "CALLS": str(calls), "SLURM_JOB_ID": "77", "STUDY_CODE": "0",
            "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "8",
            "SLURM_SUBMIT_DIR": str(tmp_path / "project"),
            "SRUN_FAKE_DIR": str(tmp_path / "steps"), "SRUN_FAKE_KEY": "none",
            "BIRDSONG_VENV": str(tmp_path / "venv"), "BIRDSONG_TMP": str(tmp_path), **settings,
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            env={name: value for name, value in env.items() if value},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(*words, **settings):
        process = start(*words, **settings)
        _, process.text = process.communicate(timeout=60)
        return process, calls.read_text().splitlines()

    run.folder, run.start, run.calls = tmp_path, start, calls
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
    assert done.returncode == 0, done.text
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


def test_job_that_must_stop_ends_the_study_before_its_cluster(job):
    """Two minutes before its time is over: `--signal=B:TERM@120`."""
    process = job.start(STUDY_CODE="")
    while "study study/run_tune.py" not in job.calls.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "submit the same line again" in text
    ended = [call for call in job.calls.read_text().splitlines() if call.startswith("ended")]
    assert ended == ["ended study", "ended worker", "ended worker", "ended head"]


def test_job_that_is_queued_again_does_not_take_the_old_head_for_its_own(job):
    old = job.folder / "birdsong-77" / "ray"
    old.mkdir(parents=True)
    (old / "ray_current_cluster").write_text("192.0.2.9:1111")
    _, calls = job()
    addresses = {call for call in calls if "192.0.2.9" in call}
    assert addresses == set()
    assert [call for call in calls if call.startswith("study")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SLURM_JOB_ID": ""}, "submit this file with sbatch"),
        ({"SLURM_SUBMIT_DIR": "/usr"}, "there is no study/run_tune.py in /usr"),
        ({"BIRDSONG_VENV": "/nowhere"}, "there is no /nowhere/bin/ray"),
        ({"BIRDSONG_IMAGE": "/nowhere.sif"}, "there is no /nowhere.sif"),
    ],
)
def test_what_is_missing_is_named(job, settings, message):
    done, calls = job(**settings)
    assert done.returncode != 0
    assert message in done.text
    assert calls == []


@pytest.mark.parametrize("asked", [{"NODE": "64000"}, {"CPU": "8000"}])
def test_memory_of_the_job_bounds_shared_objects(job, asked):
    _, calls = job(**{f"SLURM_MEM_PER_{of}": megabytes for of, megabytes in asked.items()})
    assert all("--object-store-memory=19200000000" in c for c in starts_of_ray(calls))


def test_job_with_all_memory_of_its_nodes_lets_ray_count(job):
    """`sbatch --mem=0`."""
    _, calls = job(SLURM_MEM_PER_NODE="0")
    assert not any("--object-store-memory" in call for call in starts_of_ray(calls))


@pytest.mark.parametrize(("given", "n"), [("2", 2), ("", 0)])
def test_ray_has_the_gpus_of_the_job_and_no_others(job, given, n):
    _, calls = job(SLURM_GPUS_ON_NODE=given)
    assert all(f"--num-gpus={n}" in call.split() for call in starts_of_ray(calls))


def test_head_is_reached_through_the_network_of_its_nodes(job):
    _, calls = job()
    named = ["--node-ip-address=192.0.2.7" in call for call in starts_of_ray(calls)]
    assert named == [True, False, False]


def test_all_of_the_environment_comes_from_the_image_where_one_is_given(job):
    image = job.folder / "birdsong.sif"
    image.touch()
    bin_of_image = job.folder / "in_image"
    (job.folder / "venv" / "bin").rename(bin_of_image)
    done, calls = job("--preset", "smoke", BIRDSONG_IMAGE=str(image), IN_IMAGE=str(bin_of_image))
    assert done.returncode == 0, done.text
    inside = {call.removeprefix("inside birdsong.sif ") for call in calls if "inside" in call}
    assert {call for call in calls if call.startswith("ray ")} <= inside
    assert "python study/run_tune.py --preset smoke --address 192.0.2.7:4321" in inside


def starts_of_ray(calls):
    """The three calls that start Ray, that of the head first."""
    found = [call for call in calls if call.startswith("ray start")]
    assert len(found) == 3
    return found


def test_lines_for_sbatch_stand_before_every_command():
    """SLURM reads no #SBATCH line behind the first command."""
    lines = SCRIPT.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert max(options) < first
