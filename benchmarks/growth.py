"""What a study of a whole laboratory would take, from what one unit of each part takes here.

    python -m benchmarks.growth
    python -m benchmarks.growth --birds 20 --days 60 --songs 1500 --seconds 3

Each part runs alone on a little, on one core: listing files, reading sound, encoding, one search of
the number of states, telling MLflow. What it took is multiplied. CPU is that of this machine; bytes
are those of any. Training is left out: it takes what `search.n_trials` and `mdgan.n_snippets` say,
whatever the laboratory has recorded. Snippets lie side by side here; with the `snippets.hop` that a
study has by default there are four times as many latents.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_FILES = 40_000
N_SONGS, SONG_S = 30, 4.0
N_DAY = 1500  # recordings of a bird and day
LATENT_DIM, N_STATES, N_SNIPPETS = 32, (5, 100), 6_000
N_RUNS, N_POINTS, N_METRICS = 100, 40, 7
SNIPPET_S = 0.064
KB, GB, TB = 1e3, 1e9, 1e12
HOUR = 3600.0


def files(folder: Path) -> dict[str, float]:
    """The driver's list of recordings: seconds for each, and memory for each beyond a quarter."""
    small = listed(folder / "a quarter", N_FILES // 4)
    all_of_them = listed(folder / "all", N_FILES)
    memory = (all_of_them["peak"] - small["peak"]) / (N_FILES - N_FILES // 4)
    return {**all_of_them, "memory": memory}


def listed(folder: Path, n_files: int) -> dict[str, float]:
    """List so many files, and split them: seconds for each, and the most memory so far."""
    import numpy as np

    from data_io.names.listing import survey
    from data_io.recordings.split import assign_split
    from data_io.recordings.table import data_hash, skip_duplicates
    from data_io.store import write_recordings

    for bird in range(4):
        for age in range(50, 60):
            songs = folder / f"bird{bird}" / str(age) / "songs"
            songs.mkdir(parents=True)
            for i in range(n_files // 40):
                (songs / f"bird{bird}_{age}_{i:05d}.wav").touch()
    started = time.perf_counter()
    found = survey(folder).recordings
    walk_s = time.perf_counter() - started
    # As they are once their sound was read.
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(found))]
    found = found.with_column("sha256", hashes).with_column("seconds", np.full(len(found), 3.0))
    found = found.with_column("n_frames", np.arange(len(found)))
    found = assign_split(skip_duplicates(found), 0.15, 0.15, 0)
    path = folder / "recordings.parquet"
    write_recordings(path, found)
    data_hash(found)
    cpu_s = time.perf_counter() - started - walk_s
    return {
        "walk_s": walk_s / len(found),
        "cpu_s": cpu_s / len(found),
        "peak": _peak(),
        "row": path.stat().st_size / len(found),
    }


def sound(folder: Path) -> dict[str, float]:
    """Reading and encoding: CPU seconds and bytes for each second of sound."""
    import numpy as np
    import torch

    from data_io.aviary.params import AviaryParams
    from data_io.aviary.write import simulate_aviary
    from data_io.latents import write_latents
    from data_io.names.listing import survey
    from data_io.recordings.bird_age import read_bird_age
    from data_io.recordings.reading import ReadParams
    from data_io.store import read_spectrograms
    from models.mdgan.encoding import cut_snippets, encode_spectrogram
    from models.mdgan.model import Mdgan
    from models.mdgan.params import MdganParams
    from models.mdgan.pca import fit_pca

    torch.set_num_threads(1)
    seconds = N_SONGS * SONG_S
    params = AviaryParams(
        n_birds=1, ages_dph=(90,), minutes=seconds / 60, recording_s=(SONG_S, SONG_S)
    )
    simulate_aviary(folder / "birds", params, 0)
    listed = survey(folder / "birds").recordings
    (bird_age,) = listed.birds_and_ages()
    read_bird_age(folder / "birds", listed.taken(np.arange(3)), ReadParams(), folder / "warm")
    cpu = time.process_time()
    read_bird_age(folder / "birds", listed, ReadParams(), folder / "s")
    read_s = time.process_time() - cpu
    spectrograms = [one[:2] for one in read_spectrograms(folder / "s", *bird_age)]
    snippets = torch.from_numpy(cut_snippets(spectrograms[0][1], 16))[:, None]
    net = MdganParams(latent_dim=LATENT_DIM, n_components=LATENT_DIM)
    pca = fit_pca(snippets, LATENT_DIM, seed=0)
    encoder = Mdgan(net, n_frames=16, seed=0, pca=pca).encoder
    encode_spectrogram(encoder, spectrograms[0][1], 16)
    cpu = time.process_time()
    latents = []
    for name, one in spectrograms:
        z = encode_spectrogram(encoder, one, 16)
        latents.append((name, z, np.ones(len(z), np.float32)))
    write_latents(folder / "z", "b", "90", latents, SNIPPET_S, LATENT_DIM, {})
    return {
        "read_s": read_s / seconds,
        "encode_s": (time.process_time() - cpu) / seconds,
        "spectrograms": _size(folder / "s") / seconds,
        "latents": _size(folder / "z") / seconds,
    }


def a_day(folder: Path) -> dict[str, float]:
    """The driver reads the latents of a bird and day as the HMM stage does: seconds."""
    import numpy as np

    from data_io.latents import read_latents, write_latents

    rng, share = np.random.default_rng(0), np.ones(47, np.float32)
    songs = [
        (f"b/60/songs/{i}.wav", rng.normal(size=(47, LATENT_DIM)).astype(np.float32), share)
        for i in range(N_DAY)
    ]
    write_latents(folder, "b", "60", songs, SNIPPET_S, LATENT_DIM, {})
    read_latents(folder, "b", "60")  # warm
    started = time.perf_counter()
    found = [z.astype(np.float64) for z in read_latents(folder, "b", "60").values()]
    return {"read_s": (time.perf_counter() - started) / sum(map(len, found))}


def states(folder: Path) -> dict[str, float]:
    """A merge search: CPU seconds for each snippet, memory of the process for each beyond 1,000."""
    import numpy as np

    from models.hmm import select_n_states

    rng = np.random.default_rng(0)
    kinds = rng.normal(0, 1.5, (40, LATENT_DIM))
    used = []
    for n in (1_000, N_SNIPPETS):
        path = rng.integers(40, size=n // 4).repeat(4)
        z = kinds[path] + rng.normal(size=(len(path), LATENT_DIM))
        songs = np.split(z, len(z) // 50)
        cpu = time.process_time()
        select_n_states(songs, n_states=N_STATES, seed=0)
        used.append((time.process_time() - cpu, _peak()))
    (_, small), (cpu_s, large) = used  # the first also compiles
    return {"cpu_s": cpu_s / N_SNIPPETS, "memory": (large - small) / (N_SNIPPETS - 1_000)}


def records(folder: Path) -> dict[str, float]:
    """MLflow on a SQLite file: seconds and bytes for the run of a bird and age."""
    from study.tracking.picture import Measured
    from study.tracking.tracker import RunIdentity, RunPicture, Tracker

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracker = Tracker(uri, "growth", {"study": "growth"}, folder / "sent", {"n_states"})
    tracker.start_study({}, "growth", {})
    tracker.flush(600.0)
    before, started = _size(folder), time.perf_counter()
    for i in range(N_RUNS):
        run = RunIdentity("hmm", "trial-000", f"bird{i}", "60")
        curve = {
            k: Measured(started, {f"hmm/{m}": float(k + m) for m in range(N_METRICS)})
            for k in range(N_POINTS)
        }
        tracker.show(
            RunPicture(
                run, tracker.study_run_id, f"hmm-{i}", params={"n_states": 20}, curve=curve,
                tags={"reason": ""}, status="FINISHED",
            )
        )  # fmt: skip
    tracker.end_study("FINISHED")
    if tracker.close(900.0):
        raise RuntimeError("MLflow did not take in all of it")
    return {
        "mlflow_s": (time.perf_counter() - started) / N_RUNS,
        "size": (_size(folder) - before) / N_RUNS,
    }


def _peak() -> float:
    """Most memory that this process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _size(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


PARTS = {"files": files, "sound": sound, "a_day": a_day, "states": states, "records": records}


def measured(part: str) -> dict[str, float]:
    """A part, in a process of its own: its memory is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.growth", "--part", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print what each part takes for one unit, for the laboratory, and for a hundred of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--birds", type=int, default=20)
    parser.add_argument("--days", type=int, default=60, help="recorded of each bird")
    parser.add_argument("--songs", type=int, default=1500, help="of each day")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a song's recording")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(PARTS[options.part](Path(folder))))
        return
    file, second, latent, snippet, run = (measured(part) for part in PARTS)
    n_pieces = options.birds * options.days
    n_songs = n_pieces * options.songs
    n_seconds = n_songs * options.seconds
    n_snippets = n_seconds / SNIPPET_S
    day = options.songs * options.seconds / SNIPPET_S
    print(f"{options.birds} birds x {options.days} days x {options.songs:,} songs of "
          f"{options.seconds:g} s: {n_songs:,} recordings, {n_seconds / HOUR:,.0f} hours, "
          f"{n_snippets / 1e6:,.0f} million snippets, {day:,.0f} of a bird and day")  # fmt: skip
    rows = [
        ("list and look at all files once, s", f"{1e6 * file['walk_s']:.0f} us/file",
         n_songs * file["walk_s"], 1.0),
        ("driver: hash, split, table, s", f"{1e6 * file['cpu_s']:.0f} us/file",
         n_songs * file["cpu_s"], 1.0),
        ("driver: memory, GB", f"{file['memory'] / KB:.1f} KB/file", n_songs * file["memory"], GB),
        ("recordings.parquet, GB", f"{file['row']:.0f} B/file", n_songs * file["row"], GB),
        ("read sound, core hours", f"{1e3 * second['read_s']:.1f} ms/s",
         n_seconds * second["read_s"], HOUR),
        ("spectrograms/, TB", f"{second['spectrograms'] / KB:.0f} KB/s",
         n_seconds * second["spectrograms"], TB),
        ("encode, core hours", f"{1e3 * second['encode_s']:.1f} ms/s",
         n_seconds * second["encode_s"], HOUR),
        ("latents/, GB", f"{second['latents'] / KB:.1f} KB/s", n_seconds * second["latents"], GB),
        ("search of states, core hours", f"{1e3 * snippet['cpu_s']:.2f} ms/snippet",
         n_snippets * snippet["cpu_s"], HOUR),
        ("MLflow takes in, hours", f"{1e3 * run['mlflow_s']:.0f} ms/run",
         n_pieces * run["mlflow_s"], HOUR),
        ("MLflow's database, GB", f"{run['size'] / KB:.0f} KB/run", n_pieces * run["size"], GB),
    ]  # fmt: skip
    print(f"\n{'':36}{'one':>16}{'laboratory':>14}{'x 100':>14}")
    for what, unit, total, scale in rows:
        print(f"{what:36}{unit:>16}{total / scale:14,.2f}{100 * total / scale:14,.1f}")
    search_s, read_s = day * snippet["cpu_s"], day * latent["read_s"]
    print(f"\na bird and day: the driver reads its latents in {read_s:.2f} s; its search takes "
          f"{search_s:.0f} s of a core and {day * snippet['memory'] / GB:.2f} GB,\n"
          f"so that the driver feeds {search_s / read_s:,.0f} cores")  # fmt: skip


if __name__ == "__main__":
    main()
