"""Which recording is shown of a bird and age."""

from data_io.recordings import Recording
from study.songs import choose_recordings


def recording(bird, name, n_frames, split="train", status="ok"):
    return Recording(
        bird, "60", 60, None, f"{bird}/60/{name}.wav", n_frames=n_frames, split=split,
        status=status,
    )  # fmt: skip


def test_the_longest_held_out_recording_is_shown_or_the_longest_of_all():
    shown = choose_recordings([
        recording("a", "long", 900), recording("a", "short", 300, "valid"),
        recording("a", "held out", 400, "valid"), recording("a", "refused", 999, "", "skipped"),
        recording("b", "1", 100), recording("b", "2", 100), recording("b", "0", 50),
        recording("c", "refused", 999, "", "skipped"),
    ])  # fmt: skip
    names = {bird: one.path for (bird, _), one in shown.items()}
    assert names == {"a": "a/60/held out.wav", "b": "b/60/2.wav"}
