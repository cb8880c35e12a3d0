"""The picture of one decoder: its snippets, its training, and a map of its latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from data_io.names.ages import age_order, parse_age
from data_io.recordings.table import BirdAge
from data_io.spectrogram import SpectrogramParams

Row = dict[str, Any]
Array = NDArray[np.floating]

MAX_BIRDS_NAMED = 20  # more colours look alike, and a longer legend does not fit
MAX_AGES_NAMED = 8
MAX_NAME_CHARS = 12
HELD_OUT_CURVES = {
    "valid/recon_l1_vs_pca": "L1 / PCA-16",
    "valid/recon_l2_vs_pca": "L2 / PCA-16",
    "valid/frechet_song": "Frechet, songs",
    "valid/frechet_sample": "Frechet, prior samples",
}


@dataclass(frozen=True)
class DecoderView:
    """Content of the picture of one decoder.

    Attributes:
        rows: snippets [n_shown, n_freq, n_frames] by kind, in log(1 + magnitude); the first kind is
            real and sets the grey scale.
        shown_from: [n_shown] bird and age of the real snippets that are shown.
        latent_map: [n, 2] latents of all held-out snippets, mapped to a plane.
        map_words: name of the plane.
        birds_and_ages: [n] bird and age of each held-out snippet.
    """

    rows: dict[str, NDArray[np.float32]]
    shown_from: list[BirdAge]
    latent_map: Array
    map_words: str
    birds_and_ages: list[BirdAge]


def decoder_figure(
    view: DecoderView, reports: Sequence[Row], params: SpectrogramParams, title: str
) -> Figure:
    """Draw a decoder on one page.

    Args:
        view: its snippets and latents.
        reports: of its training, by ``snippets_seen``; ``train/`` losses, ``valid/`` metrics.
        params: of the spectrograms, for the axes.
        title: of the page.
    """
    figure = Figure(figsize=(17, 9), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.05), wspace=0.02)[0]
    _draw_snippets(left, view, params)
    losses, held_out, by_bird, by_age = right.subplots(2, 2, height_ratios=(1, 1.25)).flat
    _draw_losses(losses, reports)
    _draw_held_out(held_out, reports)
    _draw_birds(by_bird, view)
    _draw_ages(by_age, view)
    return figure


def _draw_snippets(panel: SubFigure, view: DecoderView, params: SpectrogramParams) -> None:
    real = next(iter(view.rows.values()))
    n_shown, _, n_frames = real.shape
    top = float(np.quantile(real, 0.999)) or 1.0
    extent = (0, 1000 * n_frames * params.frame_s, 0, params.sample_rate_hz / 2000)
    axes = panel.subplots(len(view.rows), n_shown, sharex=True, sharey=True, squeeze=False)
    for line, (kind, snippets) in zip(axes, view.rows.items(), strict=True):
        line[0].set_ylabel(kind, fontsize=10)
        for ax, snippet in zip(line, snippets, strict=True):
            ax.imshow(
                snippet, origin="lower", aspect="auto", cmap="gray_r", vmin=0, vmax=top,
                extent=extent, interpolation="nearest",
            )  # fmt: skip
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(2, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for ax, (bird, age) in zip(axes[0], view.shown_from, strict=True):
        ax.set_title(f"{_short(bird)}\n{_short(age)}", fontsize=8)
    panel.supxlabel(f"kHz over ms; log(1 + magnitude), white 0, black {top:.2g}", fontsize=9)


def _draw_losses(ax: Axes, reports: Sequence[Row]) -> None:
    names = dict.fromkeys(name for row in reports for name in row if name.startswith("train/"))
    for i, name in enumerate(names):
        _draw_curve(ax, reports, name, name.removeprefix("train/").replace("_", " "), f"C{i}")
    # Losses of the phases are decades apart.
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    _finish_curves(ax, "training losses, mean since the last report")


def _draw_held_out(ax: Axes, reports: Sequence[Row]) -> None:
    for i, (name, words) in enumerate(HELD_OUT_CURVES.items()):
        _draw_curve(ax, reports, name, words, f"C{i}")
    ax.axhline(1, color="0.6", lw=0.8, ls="--", zorder=1)
    ax.set_ylim(0, None)
    _finish_curves(ax, "held out; L1, L2 below 1: better than PCA-16")


def _draw_curve(ax: Axes, reports: Sequence[Row], name: str, words: str, colour: str) -> None:
    points = [(r["snippets_seen"], r[name]) for r in reports if r.get(name) is not None]
    if points:
        ax.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.2, color=colour, label=words)


def _finish_curves(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("snippets seen", fontsize=8)
    ax.set_xlim(0, None)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.tick_params(labelsize=8)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _draw_birds(ax: Axes, view: DecoderView) -> None:
    birds = sorted({bird for bird, _ in view.birds_and_ages})
    are_named = len(birds) <= MAX_BIRDS_NAMED
    if are_named:
        colours = colormaps["tab10" if len(birds) <= 10 else "tab20"](range(len(birds)))
    else:
        colours = colormaps["turbo"](np.linspace(0, 1, len(birds)))
    index = [birds.index(bird) for bird, _ in view.birds_and_ages]
    x, y = view.latent_map.T
    ax.scatter(x, y, s=5, c=colours[index], alpha=0.6, linewidths=0)
    if are_named:
        for bird, colour in zip(birds, colours, strict=True):
            ax.scatter([], [], s=20, color=colour, label=_short(bird))
        ax.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.01))
    _finish_map(ax, f"{view.map_words}; by bird{'' if are_named else f' ({len(birds)})'}")


def _draw_ages(ax: Axes, view: DecoderView) -> None:
    ages = sorted({age for _, age in view.birds_and_ages}, key=age_order)
    days = {age: parse_age(age)[0] for age in ages}
    if None in days.values():  # dates and words have an order, but no distances
        value: dict[str, float] = {age: float(i) for i, age in enumerate(ages)}
        label = "age, in order"
    else:
        value = {age: float(dph or 0) for age, dph in days.items()}
        label = "age (dph)"
    colours = [value[age] for _, age in view.birds_and_ages]
    x, y = view.latent_map.T
    points = ax.scatter(x, y, s=5, c=colours, cmap="viridis", alpha=0.6, linewidths=0)
    step = -(-len(ages) // MAX_AGES_NAMED)
    bar = ax.figure.colorbar(points, ax=ax, location="bottom", aspect=40, pad=0.01, shrink=0.95)
    named = ages[::step]
    bar.set_ticks([value[age] for age in named], labels=[_short(age) for age in named])
    is_wide = sum(len(_short(age)) for age in named) > 30
    bar.ax.tick_params(labelsize=7, rotation=30 if is_wide else 0)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    bar.set_label(label, fontsize=8)
    _finish_map(ax, f"{view.map_words}; by age")


def _finish_map(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…"
