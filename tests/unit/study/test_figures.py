"""Figures of the report where a study is large."""

from study.report.figures import bic_figure, trials_figure


def test_the_bic_figure_of_sixty_ages_has_every_curve_and_room_for_them():
    ages = [str(40 + i) for i in range(60)]
    grid = [
        {"bird": "b", "age": age, "n_states": k, "covariance_type": "full", "n_snippets": 10,
         "bic": float((k - 5) ** 2)}
        for age in ages
        for k in (3, 5, 7)
    ]  # fmt: skip
    selected = [{"bird": "b", "age": age, "covariance_type": "full", "n_states": 5} for age in ages]
    # matplotlib warns, which is an error here, where the legend leaves no room for the axes.
    (ax,) = bic_figure(grid, selected, "b", ages).axes
    curves = [line for line in ax.get_lines() if len(line.get_xdata()) == 3]
    assert len(curves) == 60
    assert all(list(curve.get_ydata()) == [0.4, 0.0, 0.4] for curve in curves)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert 4 <= len(labels) <= 8
    assert labels[0] == "40"


def test_the_curve_of_each_trial_has_its_own_reports():
    reports = [
        {"trial_id": trial, "snippets_seen": 10 * i, "valid/objective": value}
        for i in (1, 2)
        for trial, value in (("t0", 1.0 / i), ("t1", 3.0), ("t2", None))
    ]
    (ax,) = trials_figure(reports, "valid/objective", "t0").axes
    curves = [list(map(list, line.get_data())) for line in ax.get_lines()]
    assert curves == [[[10, 20], [1.0, 0.5]], [[10, 20], [3.0, 3.0]], [[], []]]


def test_the_curve_of_covariances_that_were_not_chosen_is_dashed_and_on_the_same_scale():
    grid = [
        {"age": "45", "n_states": k, "covariance_type": kind, "n_snippets": 10,
         "bic": (k - 5) ** 2 + above}
        for kind, above in (("diag", 50.0), ("full", 0.0)) for k in (3, 5, 7)
    ]  # fmt: skip
    selected = [{"bird": "b", "age": "45", "covariance_type": "full", "n_states": 5}]
    (ax,) = bic_figure(grid, selected, "b", ["45"]).axes
    curves = {line.get_linestyle(): list(line.get_ydata()) for line in ax.get_lines()
              if len(line.get_xdata()) == 3}  # fmt: skip
    assert curves == {"--": [5.4, 5.0, 5.4], "-": [0.4, 0.0, 0.4]}
