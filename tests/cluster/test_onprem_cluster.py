"""cluster-onprem.yaml on three machines: up, shut doors, a study that loses a machine, a job, down.

The tests are one story and stand in its order.
"""

import itertools
import json
import subprocess
import sys

import pytest
from doors import HEALTH, doors_of, knock, table
from hosts import wait_for
from lost_machine import StudyThatLosesAMachine
from onprem import FILE, ray_processes

from data_io.store import read_table

STUDY = "/srv/birdsong/runs/smoke"
N_TRIALS, N_REPORTS = 16, 6  # the machine that was lost is back before the last trials
ARGUMENTS = (
    f"--preset smoke --out {STUDY} data.simulation.n_birds=3 'data.simulation.ages_dph=[45,60,75]' "
    f"mdgan.n_snippets=30000 mdgan.n_reports={N_REPORTS} search.n_trials={N_TRIALS} "
    f"search.grace_reports={N_REPORTS} search.selection.rule=lowest search.selection.n_seeds=0"
)
MACHINES = {"songhead", "songworker1", "songworker2"}

# A process of Ray for every machine, as a trial would be one, so that workers' ports are open.
HOLD = """
import pathlib, socket, time, ray
ray.init("auto", log_to_driver=False)
@ray.remote(num_cpus=1)
class Guest:
    def name(self): return socket.gethostname()
guests = [Guest.remote() for _ in range(3)]
print("guests on", sorted(ray.get([guest.name.remote() for guest in guests])), flush=True)
while not pathlib.Path("/srv/birdsong/guests_leave").exists():
    time.sleep(0.5)
"""


def test_all_machines_join(onprem):
    for host in onprem.lab.machines:
        assert host.run("stat", "-c", "%a", "/root/.ray/auth_token").stdout.strip() == "600"
        assert host.run("cat", "/root/.ray/auth_token").stdout == onprem.token
        host.run("sh", "-c", "cmp ~/birdsong/requirements.txt /srv/birdsong/venv/installed.txt")
    assert onprem.n_machines() == 3


def test_other_users_of_a_machine_see_nothing(onprem):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for host in onprem.lab.machines:
        assert "session_latest" in host.run("ls", "/tmp/birdsong-root/ray").stdout
        seen = host.run(*nobody, "ls", "/tmp/birdsong-root/ray", "/tmp/ray", check=False)
        assert seen.returncode != 0
        assert "session" not in seen.stdout
        assert host.run(*nobody, "cat", "/root/.ray/auth_token", check=False).returncode != 0


def test_no_door_opens_without_the_token(onprem, tmp_path, capfd):
    with (tmp_path / "guests.log").open("w") as log:
        guests = onprem.start_on_head(f"python -c '{HOLD}'", log)
        try:
            text = tmp_path / "guests.log"
            wait_for(lambda: "guests on" in text.read_text(), 120, "a process on each machine")
            assert all(name in text.read_text() for name in MACHINES)
            doors = [door for host in onprem.lab.machines for door in doors_of(host)]
            without = knock(onprem.lab, doors)
            with_wrong = knock(onprem.lab, doors, "0" * 64)
            with_token = knock(onprem.lab, doors, onprem.token)
        finally:
            (onprem.lab.shared / "guests_leave").touch()
            guests.wait(60)
    with capfd.disabled():
        print(f"\n{table(doors, without)}")
    for said in (without, with_wrong):
        opened = {door: set(answers) - HEALTH for door, answers in said.items()}
        assert {door: answers for door, answers in opened.items() if answers} == {}

    # The knocking is not in vain: with the token, every door of Ray that can be reached opens.
    reached = {(d.ip, d.port) for d in doors if not d.is_for_the_machine_alone and d.port != 22}
    assert len(reached) > 3 * 5
    assert {door for door in reached if not set(with_token[door]) - HEALTH} == set()

    # What `docs/clusters.md` says of ports.
    alone = {door.port for door in doors if door.is_for_the_machine_alone}
    assert 8265 in alone  # the dashboard
    assert {22, 6379, 8076, 8077, 10001, 52365, 52366, 52367} == {
        d.port
        for d in doors
        if not d.is_for_the_machine_alone and d.port not in range(10002, 20000)
    }


@pytest.fixture(scope="module")
def attempts(onprem):
    """An intruder's attempts to connect, under way: Ray itself tries for half a minute."""
    addresses = ("10.77.0.2:6379", "ray://10.77.0.2:10001")
    tokens = ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64})  # none; a wrong one
    started = []
    for address, env in itertools.product(addresses, tokens):
        code = f"import ray; ray.init({address!r}); print('in', len(ray.nodes()))"
        words = onprem.lab.intruder.command([sys.executable, "-c", code], env)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, **streams))
    return started


@pytest.fixture(scope="module")
def study(onprem, attempts, tmp_path_factory):
    """A study that loses a worker in the middle and gets it back; attempts go on meanwhile."""
    return StudyThatLosesAMachine(onprem, ARGUMENTS, tmp_path_factory.mktemp("study") / "study.log")


def test_study_ends_well_though_a_machine_is_cut_off(study, capfd):
    with capfd.disabled():
        print(
            f"\nstudy {study.seconds:.0f} s; {study.lost} on {study.machine.name}: loss seen after "
            f"{study.seen_after_s:.0f} s, reported again from another machine after "
            f"{study.on_again_after_s:.0f} s; {study.machine.name} joined again "
            f"{study.back_after_s:.0f} s after its cable was put back"
        )
    assert study.process.returncode == 0, study.text[-3000:]
    assert (study.folder / "report.html").exists()
    trials = read_table(study.folder / "trials.parquet").to_pylist()
    assert [row["status"] for row in trials] == ["completed"] * N_TRIALS
    reports = read_table(study.folder / "trial_reports.parquet").to_pylist()
    for row in trials:
        told = [r["report"] for r in reports if r["trial_id"] == row["trial_id"]]
        assert told == list(range(1, N_REPORTS + 1)), row["trial_id"]


def test_lost_trial_goes_on_elsewhere_from_its_checkpoint(study):
    kept = study.reports_at_the_cut[study.lost]
    assert 1 <= len(kept) < N_REPORTS
    ended = json.loads((study.folder / "search" / study.lost / "ended.json").read_text())
    # No report of before was made again: it would have taken another time.
    assert len({report["time/seconds"] for report in kept}) == len(kept)
    assert ended["reports"][: len(kept)] == kept
    assert ended["n_retries"] >= 1
    assert ended["node"] in MACHINES - {study.machine.name}


def test_trials_ran_on_every_machine(study):
    assert set(read_table(study.folder / "trials.parquet")["node"].to_pylist()) == MACHINES


def test_hmms_were_fitted_on_every_machine(study):
    assert set(read_table(study.folder / "hmm_selected.parquet")["node"].to_pylist()) == MACHINES


def test_ray_lets_no_intruder_in(attempts):
    for attempt in attempts:
        said, _ = attempt.communicate(timeout=180)
        assert attempt.returncode != 0
        assert "ConnectionError" in said


def test_job_can_be_submitted_with_the_token_alone(onprem, study):
    """Through the tunnel of `ray dashboard`: the same study again, which has nothing left to do."""
    laptop = onprem.lab.laptop
    # An ssh that was asked to stay keeps our pipes open: no output is taken.
    tunnel = subprocess.Popen(
        laptop.command(onprem.command("dashboard", FILE)),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        get = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).status)"

        def answer(path):
            url = f"http://127.0.0.1:8265{path}"
            return laptop.run(sys.executable, "-c", get, url, check=False).stdout.strip()

        wait_for(lambda: answer("/") == "200", 60, "the tunnel", every_s=1)
        assert "HTTP Error 401" in answer("/api/jobs/")
        line = f"cd ~/birdsong && python study/run_tune.py {ARGUMENTS}"
        words = ["job", "submit", "--address", "http://127.0.0.1:8265", "--", "bash", "-c", line]
        env = {"RAY_AUTH_MODE": "token", "PYTHONUNBUFFERED": "1"}
        done = laptop.run(*onprem.command(*words), env=env, timeout=400, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "succeeded" in done.stdout
        assert done.stdout.count("skipped") >= 5, done.stdout
    finally:
        laptop.run("pkill", "-f", "8265", check=False)  # sees the laptop's own processes only
        tunnel.wait(30)


def test_ray_down_leaves_nothing(onprem):
    lab = onprem.lab
    assert all(ray_processes(host) for host in lab.machines)
    onprem.down()
    assert ray_processes(lab.head) == []
    # The workers end when they have not heard of the head for a minute.
    for host in (lab.worker1, lab.worker2):
        wait_for(lambda host=host: not ray_processes(host), 120, f"{host.name} is idle")
    for host in lab.machines:
        assert {door.process for door in doors_of(host)} == {"sshd"}
        assert host.run("sh", "-c", "ls -A /dev/shm").stdout == ""
