"""The rule that picks the best trial, against numbers worked out by hand."""

import json
import math

import pytest

from study.config.search import SelectionConfig
from study.search.selection import Selection, candidates, choose

METRIC = "valid/objective"


def trial(number, latent_dim, value, status="completed"):
    return {"trial_id": f"trial-{number:03d}", "number": number, "latent_dim": latent_dim,
            "status": status, METRIC: value, "seed": 0}  # fmt: skip


def repeats(number, latent_dim, values, in_search=0.1):
    """The row of the search, far too good, and a row per fresh seed.

    None for a training that collapsed, which has the number of collapsed trials.
    """
    rows = [
        {**trial(number, latent_dim, 1000.0 if value is None else value), "seed": seed,
         "status": "collapsed" if value is None else "completed"}
        for seed, value in enumerate(values, 1)
    ]  # fmt: skip
    return [trial(number, latent_dim, in_search), *rows]


def chosen_by(rows, selection):
    return choose(rows, selection, METRIC, seed=0)


def rule(name="one_standard_error", n_seeds=3, n_candidates=3):
    return SelectionConfig(rule=name, n_seeds=n_seeds, n_candidates=n_candidates)


def numbers(rows):
    return [row["number"] for row in rows]


# Who is a candidate.


def test_the_best_of_each_latent_size_comes_first_then_the_next_best():
    trials = [
        trial(0, 8, 0.50), trial(1, 8, 0.51), trial(2, 16, 0.70), trial(3, 32, 0.60),
        trial(4, 8, 0.52),
    ]  # fmt: skip
    assert numbers(candidates(trials, rule(n_candidates=5), METRIC)) == [0, 3, 2, 1, 4]
    assert numbers(candidates(trials, rule(n_candidates=2), METRIC)) == [0, 3]


def test_of_equal_trials_the_lower_number_comes_first():
    trials = [trial(2, 8, 0.5), trial(1, 8, 0.5), trial(0, 16, 0.5)]
    assert numbers(candidates(trials, rule(), METRIC)) == [0, 1, 2]


def test_only_completed_trials_with_a_finite_metric_are_candidates():
    trials = [
        trial(0, 8, 0.1, "stopped"), trial(1, 8, 0.2, "collapsed"), trial(2, 8, None, "failed"),
        trial(3, 8, math.nan), trial(4, 8, 0.9),
    ]  # fmt: skip
    assert numbers(candidates(trials, rule(), METRIC)) == [4]
    assert candidates(trials[:4], rule(), METRIC) == []


# Who wins.


def test_the_smallest_latent_size_within_one_standard_error_of_the_lowest_mean():
    # Means 0.52, 0.53, 0.62; squares around them 0.0008 + 0.0008 + 0.0024 with 2 degrees each.
    rows = repeats(0, 16, [0.50, 0.52, 0.54]) + repeats(1, 8, [0.51, 0.53, 0.55])
    rows += repeats(2, 4, [0.60, 0.60, 0.66])
    selection = chosen_by(rows, rule())
    error = math.sqrt(0.004 / 6 / 3)
    assert selection.standard_error == pytest.approx(error)
    assert selection.limit == pytest.approx(0.52 + error)
    assert (selection.chosen, selection.lowest) == ("trial-001", "trial-000")
    assert [one.mean for one in selection.candidates] == pytest.approx([0.52, 0.53, 0.62])
    assert [one.is_within for one in selection.candidates] == [True, True, False]
    assert selection.sentence == (
        "Best: trial-001 (latent_dim 8), the smallest within one standard error (0.015, 3 fresh "
        "seeds) of the lowest mean of valid/objective, trial-000's 0.52; its own is 0.53; the "
        "search itself saw 0.1"
    )


def test_a_smaller_latent_size_beyond_one_standard_error_does_not_win():
    rows = repeats(0, 16, [0.50, 0.52, 0.54]) + repeats(1, 8, [0.53, 0.55, 0.57])
    selection = chosen_by(rows, rule())
    assert selection.standard_error == pytest.approx(math.sqrt(0.0016 / 4 / 3))  # 0.0115
    assert selection.chosen == selection.lowest == "trial-000"
    assert selection.sentence == (
        "Best: trial-000 (latent_dim 16), the lowest mean of valid/objective of 2 candidates, 0.52 "
        "(standard error 0.012, 3 fresh seeds); the search itself saw 0.1"
    )


def test_of_one_latent_size_the_lower_mean_wins_then_the_lower_number():
    rows = repeats(0, 8, [0.51, 0.55]) + repeats(1, 8, [0.50, 0.54])
    assert chosen_by(rows, rule(n_seeds=2)).chosen == "trial-001"
    rows = repeats(3, 8, [0.50, 0.54]) + repeats(2, 8, [0.54, 0.50])
    assert chosen_by(rows, rule(n_seeds=2)).chosen == "trial-002"


def test_the_lowest_mean_wins_whatever_its_latent_size():
    rows = repeats(0, 16, [0.50, 0.52, 0.54]) + repeats(1, 8, [0.51, 0.53, 0.55])
    selection = chosen_by(rows, rule("lowest"))
    assert selection.chosen == "trial-000"
    assert selection.limit == pytest.approx(0.52)


def test_one_fresh_seed_gives_the_lowest_without_a_standard_error():
    rows = repeats(0, 16, [0.50]) + repeats(1, 8, [0.51])
    selection = chosen_by(rows, rule("lowest", n_seeds=1))
    assert (selection.chosen, selection.standard_error) == ("trial-000", None)
    assert selection.sentence == (
        "Best: trial-000 (latent_dim 16), the lowest mean of valid/objective of 2 candidates, 0.5 "
        "(1 fresh seed); the search itself saw 0.1"
    )


def test_the_value_that_made_a_trial_a_candidate_does_not_count():
    rows = repeats(0, 16, [0.50, 0.52], in_search=0.60) + repeats(1, 8, [0.60, 0.62], in_search=0.1)
    selection = chosen_by(rows, rule("lowest", n_seeds=2))
    assert selection.chosen == "trial-000"
    assert [one.mean for one in selection.candidates] == pytest.approx([0.51, 0.61])
    assert [one.in_search for one in selection.candidates] == [0.60, 0.1]
    assert [list(one.values) for one in selection.candidates] == [["1", "2"]] * 2


def test_without_fresh_seeds_the_search_alone_decides_and_that_is_said():
    rows = repeats(0, 16, [], in_search=0.50) + repeats(1, 8, [], in_search=0.51)
    selection = chosen_by(rows, rule("lowest", n_seeds=0))
    assert (selection.chosen, selection.standard_error) == ("trial-000", None)
    assert selection.sentence == (
        "Best: trial-000 (latent_dim 16), the lowest valid/objective of 2 candidates in the "
        "search, 0.5; no other seed was tried"
    )
    with pytest.raises(ValueError, match="n_seeds is 0: a standard error needs two seeds"):
        rule(n_seeds=0)


def test_the_only_candidate_is_chosen():
    selection = chosen_by(repeats(4, 16, [0.50, 0.54]), rule(n_seeds=2))
    assert selection.chosen == "trial-004"
    assert "the only candidate; valid/objective 0.52 (standard error 0.02, 2" in selection.sentence


# Repeats that came to nothing.


def test_a_candidate_that_collapses_with_another_seed_is_not_chosen():
    # It has the lower mean and the smaller latent size; its two values count for the spread.
    rows = repeats(0, 4, [0.40, 0.42, None]) + repeats(1, 8, [0.50, 0.52, 0.54])
    selection = chosen_by(rows, rule())
    assert selection.chosen == selection.lowest == "trial-001"
    assert selection.standard_error == pytest.approx(math.sqrt((0.0002 + 0.0008) / 3 / 3))
    assert selection.limit == pytest.approx(0.52 + selection.standard_error)
    unsound = selection.candidates[0]
    assert (unsound.is_sound, unsound.is_within) == (False, False)
    assert unsound.values == {"1": 0.40, "2": 0.42, "3": None}
    assert selection.sentence == (
        "Best: trial-001 (latent_dim 8), the only candidate that completed with every seed; "
        "valid/objective 0.52 (standard error 0.011, 3 fresh seeds); the search itself saw 0.1; "
        "not eligible, as another seed failed or collapsed: trial-000"
    )
    # Trial 0 has a lower mean than the lowest of those that are counted.
    selection = chosen_by([*rows, *repeats(2, 4, [0.60, 0.62, 0.64])], rule())
    assert "the lowest mean of valid/objective of 2 candidates, 0.52 (" in selection.sentence
    assert selection.sentence.endswith("failed or collapsed: trial-000")


def test_where_all_candidates_collapse_with_another_seed_the_best_is_chosen_with_a_warning():
    rows = repeats(0, 8, [0.40, None]) + repeats(1, 16, [0.50, None])
    selection = chosen_by(rows, rule(n_seeds=2))
    assert (selection.chosen, selection.standard_error) == ("trial-000", None)
    assert selection.sentence == (
        "Best: trial-000 (latent_dim 8), the lowest mean of valid/objective of 2 candidates, 0.4; "
        "the search itself saw 0.1; but no candidate completed with every seed: trust none of them"
    )


def test_a_repeat_whose_metric_is_not_a_number_is_a_failure():
    rows = repeats(0, 8, [0.40, math.nan]) + repeats(1, 16, [0.50, 0.52])
    assert chosen_by(rows, rule(n_seeds=2)).chosen == "trial-001"


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="None of 1 candidates has a value of valid/objective"):
        chosen_by(repeats(0, 8, [None, None]), rule(n_seeds=2))


def test_a_selection_survives_json():
    rows = repeats(0, 4, [0.40, None]) + repeats(1, 8, [0.50, 0.52])
    selection = chosen_by(rows, rule(n_seeds=2))
    assert Selection.from_dict(json.loads(json.dumps(selection.to_dict()))) == selection
