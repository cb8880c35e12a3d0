"""A classifier that tells sampled latents from real ones."""

import numpy as np

from models.checks.windows import check_windows, told_apart


def songs(seed, jumps=1.0, n_songs=12, of_songs=0.0):
    """Songs whose snippets have variance 1; neighbours differ by ``jumps`` of what chance gives."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_songs):
        z = rng.standard_normal((120, 3))
        for t in range(1, len(z)):
            z[t] = np.sqrt(1 - jumps**2) * z[t - 1] + jumps * z[t]
        found.append(z + of_songs * rng.standard_normal(3))
    return found


def test_songs_of_one_model_are_not_told_apart():
    assert 0.44 < told_apart(songs(0), songs(1), 0) < 0.56


def test_songs_that_flow_are_told_from_songs_that_jump_by_their_windows_alone():
    assert told_apart(songs(0, jumps=0.6), songs(1), 0) > 0.7


def test_what_one_song_alone_has_does_not_help_with_the_others():
    assert told_apart(songs(0, of_songs=3.0), songs(1, of_songs=3.0), 0) < 0.7


def test_the_verdict_follows():
    replicas = [songs(10 + i) for i in range(6)]
    assert check_windows(songs(0), replicas, 0).verdict in ("like the bird", "close")
    found = check_windows(songs(0, jumps=0.6), replicas, 0)
    assert found.verdict == "unlike the bird"
    assert found.real > 0.7 > found.spread_high
    few = check_windows(songs(0, n_songs=7), replicas, 0)
    assert few.verdict == "cannot tell"
    assert "7 songs" in few.reason


def test_songs_that_are_too_short_for_a_window_tell_nothing():
    far = [[song + 50 for song in songs(i)] for i in range(6)]
    check = check_windows([song[:2] for song in songs(0)], far, seed=0)
    assert check.verdict == "cannot tell"
    assert "0 songs of 3 snippets or more" in check.reason
    some_short = [song[:2] if i % 3 == 0 else song for i, song in enumerate(songs(0))]
    assert check_windows(some_short, far, seed=0).verdict == "unlike the bird"
