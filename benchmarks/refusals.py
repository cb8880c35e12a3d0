"""How long it takes until a study that cannot run is refused.

    python -m benchmarks.refusals
    python -m benchmarks.refusals --n-recordings 20000

Each row is one command that asks for something that is not there. It prints the seconds until the
command ended, its exit code (2: refused), and the first words of the refusal, beside the seconds of
the same command where nothing is wrong (`--doctor`, `--dry-run`). Nothing is trained. The row of a
run folder that is not shared takes root: a second node gets a file system of its own (unshare -m).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, str(ROOT / "study" / "run_tune.py"), "--preset", "smoke"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def timed(folder: Path, *words: str) -> tuple[float, int, str]:
    """Run the command with these words; give seconds, exit code, and the last line with words."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    out = [] if "--out" in words else ["--out", str(folder / "run")]
    started = time.perf_counter()
    done = subprocess.run(
        [*COMMAND, "--tracking-uri", uri, *out, *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("error")), lines[-1] if lines else "")
    return seconds, done.returncode, said


@contextmanager
def two_nodes(folder: Path, hidden: Path) -> Iterator[str]:
    """A cluster of two nodes, the second of which does not see ``hidden``; give its address."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    temp = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets need a short name
    start = [*RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    head = [*start, "--head", "--port=0", f"--temp-dir={temp}", "--include-dashboard=false"]
    log = (folder / "ray.log").open("w")
    hosts = [
        subprocess.Popen(head, stdout=log, stderr=log, env=environment, start_new_session=True)
    ]
    try:
        address = temp / "ray_current_cluster"
        while not address.exists() or not address.read_text().strip():
            time.sleep(0.2)
        at = address.read_text().strip()
        hide = f'mount -t tmpfs none {hidden} && exec "$@"'
        second = ["unshare", "-m", "sh", "-c", hide, "sh", *start, f"--address={at}"]
        hosts.append(
            subprocess.Popen(
                second, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        )
        time.sleep(15)  # until the second has joined
        yield at
    finally:
        for host in reversed(hosts):
            os.killpg(host.pid, signal.SIGTERM)
            host.wait(60)
        log.close()
        shutil.rmtree(temp, ignore_errors=True)


def recordings(folder: Path, n: int) -> Path:
    """A folder of ``n`` empty sound files, a hundred for each bird and age."""
    for i in range(n):
        path = folder / f"bird{i // 1000}" / f"{40 + i // 100 % 10}" / f"{i:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def show(what: str, result: tuple[float, int, str]) -> None:
    """Print one row."""
    seconds, code, said = result
    print(f"{what:<44} {seconds:7.1f} s {code:5d}   {said[:60]}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-recordings", type=int, default=2_000)
    n = parser.parse_args().n_recordings
    print(f"{'asked for':<44} {'until it ended':>9} {'exit':>4}   said")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show("nothing wrong, --dry-run", timed(folder, "--dry-run"))
        show("nothing wrong, --doctor", timed(folder, "--doctor"))
        show("a GPU where there is none", timed(folder, "resources.gpus_per_trial=64"))
        show("a fraction that fills no GPU", timed(folder, "resources.gpus_per_trial=0.6"))
        show("a folder that is not there", timed(folder, "--data", str(folder / "nowhere")))
        unwritable = folder / "file"
        unwritable.write_text("")
        show("a run folder below a file", timed(folder, "--out", str(unwritable / "run")))
        data = recordings(folder / "data", n)
        show(f"{n:,} recordings, --doctor", timed(folder, "--doctor", "--data", str(data)))
        if os.geteuid() or shutil.which("unshare") is None:
            print("a run folder that is not shared               takes root and unshare")
            return
        hidden = folder / "hidden"
        hidden.mkdir()
        os.environ["RAY_AUTH_MODE"] = "disabled"
        with two_nodes(folder, hidden) as address:
            shared = timed(folder, "--doctor", "--address", address)
            show("two nodes, nothing wrong, --doctor", shared)
            words = ("--address", address, "--out", str(hidden / "run"))
            show("two nodes, a run folder that is not shared", timed(folder, *words))


if __name__ == "__main__":
    main()
