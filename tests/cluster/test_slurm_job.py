"""slurm.sh on two machines, two jobs at once; stand-ins for SLURM reach the nodes over ssh."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from doors import HEALTH, doors_of, knock
from hosts import ROOT, wait_for
from onprem import ray_processes

from data_io.store import read_table

FAKES = Path(__file__).with_name("slurm_fakes")
NODES = "songhead,songworker1"
TINY = [
    "--preset", "smoke", "data.simulation.n_birds=1", "data.simulation.ages_dph=[45]",
    "mdgan.n_snippets=3200", "search.n_trials=3", "search.selection.rule=lowest",
    "search.selection.n_seeds=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def slurm(lab):
    """Gives a function that submits slurm.sh as job 101, 102, ... and returns the process."""
    if not (lab.shared / "venv").exists():
        lab.share_environment()
    left_out = shutil.ignore_patterns(".*", "runs", "tests", "docs", "__pycache__")
    shutil.copytree(ROOT, lab.shared / "project", ignore=left_out)
    shutil.copytree(FAKES, lab.shared / "fakes")
    shutil.copy(lab.home / ".ssh" / "birdsong", lab.shared / "key")
    for folder in ("home", "steps"):
        (lab.shared / folder).mkdir()
    add_network_without_nodes(lab.head)
    jobs = []

    def submit(*words, **settings):
        number = 101 + len(jobs)
        env = {
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": NODES,
            "SLURM_SUBMIT_DIR": "/srv/birdsong/project",
            "SLURM_CPUS_PER_TASK": "1",
            "BIRDSONG_VENV": "/srv/birdsong/venv",
            "HOME": "/srv/birdsong/home",
            "PATH": "/srv/birdsong/fakes:/usr/local/bin:/usr/bin:/bin",
            "NUMBA_CACHE_DIR": "/srv/birdsong/numba",
            "SRUN_FAKE_DIR": "/srv/birdsong/steps",
            "SRUN_FAKE_KEY": "/srv/birdsong/key",
            **settings,
        }
        log = lab.folder / f"job-{number}.log"
        with log.open("w") as stream:
            command = lab.head.command(["bash", "/srv/birdsong/project/slurm.sh", *words], env)
            job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        job.text = log.read_text
        job.token = lab.shared / "home" / ".ray" / f"birdsong-{number}.token"
        jobs.append(job)
        return job

    yield submit
    lab.head.run("ip", "link", "delete", "outside")
    lab.head.run("ip", "route", "add", "default", "via", lab.laptop.ip)


def add_network_without_nodes(host):
    """The way out of the cluster does not lead to its nodes, and Ray by itself takes that one."""
    host.run("ip", "link", "add", "outside", "type", "veth", "peer", "name", "nowhere")
    host.run("ip", "addr", "add", "10.99.0.1/24", "dev", "outside")
    for end in ("outside", "nowhere"):
        host.run("ip", "link", "set", end, "up")
    host.run("ip", "route", "replace", "default", "via", "10.99.0.2")


def test_two_jobs_share_two_nodes_and_leave_nothing(lab, slurm):
    study = slurm(*TINY, "--out", "/srv/birdsong/runs/whole")
    cut = slurm(*TINY, "--out", "/srv/birdsong/runs/cut")
    for job in (study, cut):
        wait_for(lambda job=job: "Ray at" in job.text() or job.poll(), 300, "Ray is up in a job")
        assert "on songhead songworker1" in job.text(), job.text()
    addresses = [re.search(r"^Ray at (\S+) on", job.text(), re.M)[1] for job in (study, cut)]
    assert len(set(addresses)) == 2
    assert_nobody_gets_in(lab, study, cut)

    # What SLURM does two minutes before the end (--signal=B:TERM@120): a signal to the script.
    records = lab.shared / "runs" / "cut" / "recordings.parquet"
    wait_for(lambda: records.exists() or cut.poll(), 400, "the study has begun")
    lab.head.run("pkill", "-TERM", "-f", "^bash /srv/birdsong/project/slurm.sh .*/runs/cut")
    assert cut.wait(120) == 143, cut.text()
    assert "submit the same line again" in cut.text()
    last_word = cut.text().index("Interrupted. The same command goes on from here.")
    assert last_word < cut.text().index("srun: sending Ctrl-C")  # Ray was still there
    assert "srun: forcing job termination" not in cut.text()
    assert not cut.token.exists()

    # The other one goes on undisturbed, to its end.
    assert study.wait(600) == 0, study.text()
    assert "2 nodes" in study.text()
    trials = read_table(lab.shared / "runs" / "whole" / "trials.parquet").to_pylist()
    assert [row["status"] for row in trials] == ["completed"] * 3
    assert_nothing_is_left(lab, study, cut)


def assert_nobody_gets_in(lab, *jobs):
    tokens = {job.token.read_text() for job in jobs}
    assert len(tokens) == len(jobs)
    assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in tokens)
    assert {job.token.stat().st_mode & 0o777 for job in jobs} == {0o600}
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for host in (lab.head, lab.worker1):
        assert host.run(*nobody, "ls", "/tmp/birdsong-101", check=False).returncode != 0
    doors = [door for host in (lab.head, lab.worker1) for door in doors_of(host)]
    assert {answer for answers in knock(lab, doors).values() for answer in answers} <= HEALTH


def test_job_whose_ray_does_not_start_ends_at_once(lab, slurm):
    (lab.shared / "no_ray" / "bin").mkdir(parents=True)
    for name in ("ray", "activate", "python"):
        path = lab.shared / "no_ray" / "bin" / name
        path.write_text({"ray": "#!/bin/sh\necho 'no room for Ray'\nexit 5\n"}.get(name, ""))
        path.chmod(0o755)
    (lab.shared / "no_ray" / "bin" / "activate").write_text("PATH=/srv/birdsong/no_ray/bin:$PATH\n")
    (lab.shared / "no_ray" / "bin" / "python").write_text("#!/bin/sh\necho 30001\n")
    job = slurm("--preset", "smoke", BIRDSONG_VENV="/srv/birdsong/no_ray")
    assert job.wait(60) == 1, job.text()
    assert "Ray ended while waiting for head on songhead" in job.text()
    assert_nothing_is_left(lab, job)


def assert_nothing_is_left(lab, *jobs):
    for host in (lab.head, lab.worker1):
        wait_for(lambda host=host: not ray_processes(host), 30, f"{host.name} is idle")
        assert "birdsong-1" not in host.run("ls", "/tmp").stdout
        assert {door.process for door in doors_of(host)} == {"sshd"}
    assert [job for job in jobs if job.token.exists()] == []
