"""Our E-step against hmmlearn's: the same searches by both, their times, and whether they agree.

python -m benchmarks.hmm_engines RUN          the birds and ages of a finished run folder
python -m benchmarks.hmm_engines RUN --first 4
python -m benchmarks.hmm_engines              made-up latents of 6 birds

Each search runs twice in this process, on one thread: with hmm.engine=ours and with
hmm.engine=hmmlearn. Of a run folder, the settings of its search are those of the run. Times are
CPU times; a small search before compiles our kernels.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_io.snippets import SnippetParams
from data_io.store import read_table
from models.hmm import HmmParams, StatesFound, search_states
from study.base.seeds import bird_age_seed
from study.config.tree import StudyConfig
from study.encode import whitened
from study.how_much.finished import open_study

MADE_UP = StudyConfig(
    hmm=HmmParams(n_states=(2, 20)), snippets=SnippetParams(hop=SnippetParams().n_frames), seed=0
)
N_BIRDS, N_SNIPPETS, LATENT_DIM, N_KINDS = 6, 1200, 8, 8


def made_up() -> Iterator[tuple[tuple[str, str], list[np.ndarray]]]:
    """Ten songs of each of some birds, of eight kinds of snippet."""
    for i in range(N_BIRDS):
        rng = np.random.default_rng(i)
        kinds = rng.normal(0, 1.5, (N_KINDS, LATENT_DIM))
        states = rng.integers(N_KINDS, size=N_SNIPPETS // 4).repeat(4)
        z = kinds[states] + rng.normal(size=(N_SNIPPETS, LATENT_DIM))
        yield (f"bird{i}", "60"), np.split(z, 10)


def of_run(
    run: Path, first: int | None
) -> tuple[StudyConfig, Iterator[tuple[tuple[str, str], list[np.ndarray]]]]:
    """Settings, and latents of the birds and ages of a run folder that have a decoder."""
    study = open_study(run)
    rows = read_table(study.paths.hmm_selected).to_pylist()
    encoded = [(r["bird"], r["age"]) for r in rows if r["status"] != "no_decoder"][:first]
    scope = study.config.decoders.scope
    return study.config, (
        (bird_age, whitened(study.paths, bird_age, scope)) for bird_age in encoded
    )


def searched(
    sequences: list[np.ndarray], config: StudyConfig, seed: int, engine: str
) -> tuple[StatesFound, float]:
    """What a search finds by an engine, and its CPU seconds."""
    params = dataclasses.replace(config.hmm, engine=engine)
    started = time.process_time()
    found = search_states(sequences, params, seed, new_share=config.snippets.new_share)
    return found, time.process_time() - started


def main() -> None:
    """Print a row for each bird and age, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="finished run folder")
    parser.add_argument("--first", type=int, help="so many birds and ages of the run folder")
    options = parser.parse_args()
    config, songs = MADE_UP, made_up()
    if options.run is not None:
        config, songs = of_run(options.run, options.first)
    params, seed, warm = config.hmm, config.seed, next(made_up())[1]
    few = dataclasses.replace(params, n_states=(2, 3), max_n_states=3)
    searched(warm, dataclasses.replace(config, hmm=few), 0, "ours")
    print(f"{params.search} search from {params.n_states[0]} to {params.n_states[-1]} states")
    print(f"{'bird and age':24} snippets   ours, s  hmmlearn, s  ratio  states  difference of BIC")
    sums, n_agreeing, n_compared = [0.0, 0.0], 0, 0
    for bird_age, sequences in songs:
        ours, ours_s = searched(sequences, config, bird_age_seed(seed, bird_age), "ours")
        theirs, theirs_s = searched(sequences, config, bird_age_seed(seed, bird_age), "hmmlearn")
        sums = [sums[0] + ours_s, sums[1] + theirs_s]
        n_compared += 1
        n_agreeing += ours.n_states == theirs.n_states
        states = f"{ours.n_states}" if ours.n_states == theirs.n_states else (
            f"{ours.n_states} / {theirs.n_states}"
        )  # fmt: skip
        bics = [one.selection.best.bic for one in (ours, theirs) if one.selection]
        difference = f"{bics[0] - bics[1]:.2g}" if len(bics) == 2 else "no model"
        print(
            f"{' '.join(bird_age):24} {sum(map(len, sequences)):8,} {ours_s:9.2f} "
            f"{theirs_s:12.2f} {theirs_s / ours_s:6.1f}  {states:>6}  {difference:>17}",
            flush=True,
        )
    print(f"CPU: ours {sums[0]:.1f} s, hmmlearn {sums[1]:.1f} s, {sums[1] / sums[0]:.1f} times;")
    print(f"the same number of states for {n_agreeing} of {n_compared} birds and ages")


if __name__ == "__main__":
    main()
