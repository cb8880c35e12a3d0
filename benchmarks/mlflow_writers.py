"""Many studies write to the server of a laboratory, which is killed in between: is anything lost?

python -m benchmarks.mlflow_writers [--clients 8] [--metrics 10000]

Each client is a process with a tracker of its own, as the driver of a study has. The server is
MLflow on PostgreSQL behind the proxy (tests/lab_server.py); it gets SIGKILL when a quarter of all
metrics has come in, and again at three quarters, and is away for some seconds each time.
"""

import argparse
from pathlib import Path

from tests.helpers.lab_server import lab_server, missing
from tests.helpers.mlflow_writers import run_writers, write


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--metrics", type=int, default=10_000, help="of each client")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client is not None:
        write(args.client, args.metrics, args.folder)
        return
    if lack := missing():
        raise SystemExit(f"The server cannot be started here: {lack}")
    with lab_server() as server:
        done = run_writers(server, args.clients, args.metrics)
    print(
        f"{args.clients} clients, {args.metrics} metrics each, server killed {done.n_kills} times: "
        f"found {done.found} of {done.expected}, {done.duplicates} duplicates; longest call "
        f"{done.longest_call_s:.3f} s, all in the database after {done.seconds:.0f} s "
        f"({done.expected / done.seconds:.0f} metrics a second)"
    )
    if done.found < done.expected or done.duplicates:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
