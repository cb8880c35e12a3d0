"""README's pictures, made again from a finished demo study.

    make study
    python -m benchmarks.pictures runs/demo

docs/songs.png holds songs of one simulated bird at two ages, docs/report.png the head of the report
as Chromium shows it (skipped, and said, where there is none).
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from study.base.paths import ROOT, RunPaths

KINDS = ("real", "reconstruction", "sampled")
PAGE_SIZE = (930, 1125)  # pixels of report.png
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def songs(paths: RunPaths, bird: str, ages: list[str]) -> Image.Image:
    """Pictures of songs, kinds beside each other, ages below each other, in grey."""
    rows = []
    for age in ages:
        files = [paths.songs / bird / age / f"{kind}.png" for kind in KINDS]
        pictures = [np.asarray(Image.open(file).convert("L")) for file in files]
        rows.append(np.concatenate(pictures, axis=1))
    width = min(row.shape[1] for row in rows)
    return Image.fromarray(np.concatenate([row[:, :width] for row in rows]))


def page(paths: RunPaths, out: Path) -> None:
    """The top of report.html as a browser shows it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed: {out} stays as it is")
        return
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--window-size={PAGE_SIZE[0]},{PAGE_SIZE[1]}",
                f"--screenshot={out}", paths.report.resolve().as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(f"wrote {out}")


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished demo study")
    parser.add_argument("--bird", default="sim1")
    parser.add_argument("--ages", nargs="+", default=["45", "90"])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    paths = RunPaths(options.run)
    out = options.out / "songs.png"
    songs(paths, options.bird, options.ages).save(out, optimize=True)
    print(f"wrote {out}")
    page(paths, options.out / "report.png")


if __name__ == "__main__":
    main()
