"""A bird and age is read whole, again only where its files changed, and never written to."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_io.names.listing import survey
from data_io.recordings import bird_age
from data_io.recordings.bird_age import Before, read_bird_age
from data_io.recordings.reading import ReadParams, check_source, read, read_sound
from data_io.sound import file as sound_file
from data_io.sound.file import BadSoundError
from data_io.spectrogram import SpectrogramParams, log_spectrogram
from data_io.store import BrokenFileError, partition, read_spectrograms
from tests.helpers.faulty_files import content, write
from tests.helpers.finch_songs import RATE, song

PARAMS = ReadParams()


def put(root, name, sound):
    path = root / "b1" / "45" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, RATE, subtype="PCM_16")
    return path


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    for i in range(5):
        put(root, f"{i}.wav", song(i))
    return root


def listed(root):
    return survey(root).recordings


def stored(folder):
    return {s.recording: s.spectrogram for s in read_spectrograms(folder, "b1", "45")}


def whole(folder):
    return partition(folder, "b1", "45").read_bytes()


def counting(monkeypatch):
    checked = []
    check = bird_age.check_file
    monkeypatch.setattr(
        bird_age, "check_file", lambda root, file, params: checked.append(file.path) or check(
            root, file, params)
    )  # fmt: skip
    return checked


def test_every_file_has_facts_spectrogram_and_level(data, tmp_path):
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    assert found.column("status").tolist() == ["ok"] * 5
    for recording in found:
        assert recording.seconds == pytest.approx(4.0)
        assert 0.3 < recording.sound_s < 3
        assert recording.noise_floor_db < -60
        assert 0.02 < recording.reference_level < 0.3
        assert recording.n_frames == stored(tmp_path / "s")[recording.path].shape[1]


def test_stored_spectrograms_are_at_the_reference_level(data, tmp_path):
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    for sounding in read_spectrograms(tmp_path / "s", "b1", "45"):
        recording = next(r for r in found if r.path == sounding.recording)
        gain = 0.05 / recording.reference_level
        waveform, rate = read_sound(data, recording)
        expected = log_spectrogram(waveform, rate, SpectrogramParams(), gain)
        np.testing.assert_allclose(sounding.spectrogram, expected, atol=1e-5)
        seconds = sounding.has_sound.sum() * 0.004
        assert seconds == pytest.approx(recording.sound_s, abs=1e-6)


def test_rigs_of_any_gain_give_the_same_spectrograms(tmp_path):
    spectrograms, masks = [], []
    for gain_db in (-30, -20, -10, -5, 0, 5, 10):
        root, out = tmp_path / f"data{gain_db}", tmp_path / f"s{gain_db}"
        for i in range(4):
            put(root, f"{i}.wav", 10 ** (gain_db / 20) * song(i, level=0.2))
        read_bird_age(root, listed(root), PARAMS, out)
        rows = list(read_spectrograms(out, "b1", "45"))
        spectrograms.append(np.concatenate([row.spectrogram for row in rows], axis=1))
        masks.append(np.concatenate([row.has_sound for row in rows]))
    reference = spectrograms[4]
    for spectrogram, mask in zip(spectrograms, masks, strict=True):
        difference = np.abs(spectrogram - reference).sum() / reference.sum()
        assert difference < 0.05
        assert (mask != masks[4]).mean() < 0.01


def test_second_reading_checks_only_what_is_new_and_gives_what_a_first_one_would(
    data, tmp_path, monkeypatch
):
    before = Before(tmp_path / "s", read_bird_age(data, listed(data), PARAMS, tmp_path / "s"))
    put(data, "2b.wav", song(20))
    put(data, "3.wav", song(30, seconds=5.0))
    (data / "b1" / "45" / "4.wav").unlink()
    checked = counting(monkeypatch)
    second = read_bird_age(data, listed(data), PARAMS, tmp_path / "second", before)
    assert checked == ["b1/45/2b.wav", "b1/45/3.wav"]
    fresh = read_bird_age(data, listed(data), PARAMS, tmp_path / "fresh")
    assert list(second) == list(fresh)
    assert whole(tmp_path / "second") == whole(tmp_path / "fresh")


def test_nothing_new_is_served_by_what_is_there(data, tmp_path):
    found = listed(data)
    before = Before(tmp_path / "s", read_bird_age(data, found, PARAMS, tmp_path / "s"))
    assert before.serves(listed(data), PARAMS)
    os.utime(data / "b1" / "45" / "0.wav", (1, 1))
    assert not before.serves(listed(data), PARAMS)


@pytest.mark.parametrize(
    "changed",
    [
        ReadParams(longest_s=30.0),
        ReadParams(min_seconds=0.1),
        ReadParams(spectrogram=SpectrogramParams(highpass_hz=300.0)),
        ReadParams(spectrogram=SpectrogramParams(level="none")),
    ],
)
def test_another_way_of_reading_reads_everything_again(data, tmp_path, monkeypatch, changed):
    before = Before(tmp_path / "s", read_bird_age(data, listed(data), PARAMS, tmp_path / "s"))
    assert not before.serves(listed(data), changed)
    checked = counting(monkeypatch)
    second = read_bird_age(data, listed(data), changed, tmp_path / "second", before)
    assert len(checked) == 5
    assert list(second) == list(read_bird_age(data, listed(data), changed, tmp_path / "fresh"))


def test_copy_comes_into_use_when_the_original_is_gone(data, tmp_path):
    shutil.copy(data / "b1" / "45" / "1.wav", data / "b1" / "45" / "9.wav")
    first = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    status = dict(zip(first.column("path"), first.column("status"), strict=True))
    assert status["b1/45/9.wav"] == "skipped"
    (data / "b1" / "45" / "1.wav").unlink()
    before = Before(tmp_path / "s", first)
    second = read_bird_age(data, listed(data), PARAMS, tmp_path / "second", before)
    assert set(second.column("status")) == {"ok"}
    assert whole(tmp_path / "second") != whole(tmp_path / "s")


def test_the_copy_is_skipped_and_not_the_original(data, tmp_path):
    shutil.copy(data / "b1" / "45" / "1.wav", data / "b1" / "45" / "1 copy.wav")
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (skipped,) = found.where(found.column("status") == "skipped")
    assert skipped.path == "b1/45/1 copy.wav"


def test_file_of_one_channel_is_used_whatever_the_channel(data, tmp_path):
    found = read_bird_age(data, listed(data), ReadParams(channel=2), tmp_path / "s")
    assert found.column("status").tolist() == ["ok"] * 5
    assert len(stored(tmp_path / "s")) == 5


def test_song_cut_from_a_long_file_is_used_once(data, tmp_path):
    long = np.concatenate([song(50, 20.0), song(51, 20.0)])
    put(data, "day.wav", long)
    put(data, "song.wav", long[7 * RATE + 11 : 12 * RATE])
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (skipped,) = found.where(found.column("status") == "skipped")
    assert skipped.path == "b1/45/song.wav"
    assert "its sound lies in b1/45/day.wav from 7.0" in skipped.reason


def test_long_file_is_cut_into_pieces_that_follow_each_other(data, tmp_path):
    put(data, "day.wav", song(50, 100.0))
    found = read_bird_age(data, listed(data), ReadParams(longest_s=20.0), tmp_path / "s")
    pieces = [row for row in found if row.of_file]
    assert {row.of_file for row in pieces} == {"b1/45/day.wav"}
    assert all(row.seconds <= 20.0 for row in pieces)
    ends = [row.start_s + row.seconds for row in pieces]
    assert [row.start_s for row in pieces] == pytest.approx([0.0, *ends[:-1]], abs=1e-6)
    assert ends[-1] == pytest.approx(100.0, abs=0.005)
    assert pieces[1].path == f"b1/45/day.wav#t={pieces[1].start_s:.3f},{ends[1]:.3f}"
    spectrograms = stored(tmp_path / "s")
    joined = np.concatenate([spectrograms[row.path] for row in pieces], axis=1)
    waveform, rate = soundfile.read(data / "b1" / "45" / "day.wav", dtype="float32")
    gain = 0.05 / pieces[0].reference_level
    np.testing.assert_allclose(
        joined, log_spectrogram(waveform, rate, SpectrogramParams(), gain), atol=1e-5
    )


def test_sound_of_a_piece_is_the_part_of_the_file(data, tmp_path):
    sound = song(50, 100.0)
    put(data, "day.wav", sound)
    found = read_bird_age(data, listed(data), ReadParams(longest_s=20.0), tmp_path / "s")
    piece = [row for row in found if row.of_file][2]
    waveform, rate = read_sound(data, piece)
    assert rate == RATE
    start = round(piece.start_s * RATE)
    np.testing.assert_allclose(waveform, sound[start : start + len(waveform)], atol=1e-4)
    assert len(waveform) == pytest.approx(piece.seconds * RATE, abs=1)


def test_a_source_with_one_altered_byte_and_its_old_time_is_refused_by_name(data, tmp_path):
    put(data, "day.wav", song(50, 100.0))
    found = read_bird_age(data, listed(data), ReadParams(longest_s=20.0), tmp_path / "s")
    for recording in found:  # pieces of a long file, and whole files
        check_source(data, recording)
    for recording in (
        next(row for row in found if not row.of_file),
        next(row for row in found if row.of_file),
    ):
        path = data / recording.file
        before = path.stat()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(BadSoundError, match=rf"{path} is not the file .* \(touch {path}\)"):
            check_source(data, recording)


@pytest.mark.parametrize(("n_files", "seconds"), [(1, 30.0), (2, 12.0), (1, 9.0)])
def test_few_files_are_cut_so_that_they_can_be_split(tmp_path, n_files, seconds):
    for i in range(n_files):
        put(tmp_path / "data", f"{i}.wav", song(i, seconds))
    root = tmp_path / "data"
    found = read_bird_age(root, listed(root), PARAMS, tmp_path / "s")
    assert len(found) >= 3
    assert found.column("seconds").sum() == pytest.approx(n_files * seconds, abs=0.01)
    before = Before(tmp_path / "s", found)
    assert before.serves(listed(root), PARAMS)
    second = read_bird_age(root, listed(root), PARAMS, tmp_path / "second", before)
    assert list(second) == list(found)


def test_recording_without_sound_is_flagged_and_named(data, tmp_path):
    noise = 0.0005 * np.random.default_rng(9).standard_normal(4 * RATE)
    put(data, "cage.wav", noise.astype("f4"))
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (flagged,) = found.where(found.column("status") == "flagged")
    assert flagged.path == "b1/45/cage.wav"
    assert "no frame holds sound" in flagged.reason
    before = Before(tmp_path / "s", found)
    put(data, "new.wav", song(77))
    again = read_bird_age(data, listed(data), PARAMS, tmp_path / "second", before)
    assert sum("no frame" in reason for reason in again.column("reason")) == 1
    assert max(reason.count("no frame") for reason in again.column("reason")) == 1


def test_bad_file_is_skipped_and_its_neighbours_are_read(data, tmp_path):
    (data / "b1" / "45" / "broken.wav").write_bytes(b"RIFF")
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    assert sorted(found.column("status")) == ["ok"] * 5 + ["skipped"]
    assert len(stored(tmp_path / "s")) == 5


def test_check_alone_writes_nothing(data, tmp_path):
    found = read_bird_age(data, listed(data), PARAMS, None)
    assert found.column("status").tolist() == ["ok"] * 5
    assert sorted(tmp_path.iterdir()) == [data]


def test_read_gives_the_chosen_channel(tmp_path):
    left, right = song(1), song(2)
    path = tmp_path / "b1" / "45" / "x.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.stack([left, right], 1), RATE, subtype="FLOAT")
    (recording,) = listed(tmp_path)
    for channel, sound in ((1, left), (2, right)):
        found, waveform = read(tmp_path, recording, 0.1, channel)
        assert found.n_channels == 2
        np.testing.assert_array_equal(waveform, sound)


def test_altered_store_is_refused_by_name(data, tmp_path):
    before = Before(tmp_path / "s", read_bird_age(data, listed(data), PARAMS, tmp_path / "s"))
    path = partition(tmp_path / "s", "b1", "45")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    put(data, "new.wav", song(77))
    with pytest.raises(BrokenFileError, match=str(path)):
        read_bird_age(data, listed(data), PARAMS, tmp_path / "second", before)


def test_recordings_are_never_touched(data, tmp_path):
    def state(path: Path):
        stat = path.stat()
        return path.read_bytes() if path.is_file() else b"", stat.st_mode, stat.st_mtime_ns

    before = {path: state(path) for path in [data, *data.rglob("*")]}
    read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    assert {path: state(path) for path in [data, *data.rglob("*")]} == before


def named(root, *days):
    for i, day in enumerate(days):
        put(root, f"b_{day}_0725.wav", song(i))


def test_files_that_come_in_another_order_are_read_as_at_first(tmp_path):
    """Names added later may tell the order of day, month and year, and so the order of files."""
    root = tmp_path / "data"
    named(root, "010203", "020104", "030102")
    first = read_bird_age(root, listed(root), PARAMS, tmp_path / "s1")
    named(root, "010203", "020104", "030102", "250102", "020325", "020326", "020327")
    files = listed(root)
    again = read_bird_age(root, files, PARAMS, tmp_path / "s2", Before(tmp_path / "s1", first))
    assert first.column("path")[0] == "b1/45/b_030102_0725.wav"
    assert again.column("path")[0] == "b1/45/b_010203_0725.wav"
    assert again.table.equals(read_bird_age(root, files, PARAMS, tmp_path / "s3").table)
    assert whole(tmp_path / "s2") == whole(tmp_path / "s3")


@pytest.mark.parametrize("comes_first", [True, False])
def test_what_names_and_birds_csv_say_is_that_of_now(tmp_path, monkeypatch, comes_first):
    root = tmp_path / "data"
    for i in range(4):
        put(root, f"x_2018-09-19_06-28-4{i}.wav", song(i))
    table = root / "birds.csv"
    if comes_first:
        table.write_text("bird,hatch_date\nb1,2018-01-01\n")
    first = read_bird_age(root, listed(root), PARAMS, tmp_path / "s1")
    if comes_first:
        table.unlink()
    else:
        table.write_text("bird,hatch_date\nb1,2018-01-01\n")
    before, files = Before(tmp_path / "s1", first), listed(root)
    assert not before.serves(files, PARAMS)
    checked = counting(monkeypatch)
    again = read_bird_age(root, files, PARAMS, tmp_path / "s2", before)
    assert checked == []
    assert again.column("status").tolist() == ["ok" if comes_first else "flagged"] * 4
    assert again.table.equals(read_bird_age(root, files, PARAMS, tmp_path / "s3").table)
    assert Before(tmp_path / "s2", again).serves(files, PARAMS)


def test_a_file_that_goes_or_changes_after_its_check_is_skipped_by_name(
    data, tmp_path, monkeypatch
):
    transform = bird_age.transform

    def after(root, one, params):
        if one.recording.path == "b1/45/1.wav":
            (root / one.recording.path).unlink()
        if one.recording.path == "b1/45/3.wav":
            put(root, "3.wav", song(33, 5.0))
        return transform(root, one, params)

    monkeypatch.setattr(bird_age, "transform", after)
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    reasons = {r.path: r.reason for r in found if not r.is_used}
    assert reasons == {
        "b1/45/1.wav": "cannot be read for now: No such file or directory",
        "b1/45/3.wav": "cannot be read any more: it was written to after it was checked",
    }
    assert set(stored(tmp_path / "s")) == {f"b1/45/{i}.wav" for i in (0, 2, 4)}


def test_a_bird_and_age_whose_files_all_go_is_no_error(data, tmp_path, monkeypatch):
    transform = bird_age.transform

    def after(root, one, params):
        shutil.rmtree(root, ignore_errors=True)
        return transform(root, one, params)

    monkeypatch.setattr(bird_age, "transform", after)
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    assert found.column("status").tolist() == ["skipped"] * 5


def test_a_rec_that_is_added_or_changed_later_is_taken_into_account(data, tmp_path):
    made = data / "b1" / "45" / "9.cbin"
    samples, rec = content(song(9), "cbin", rate=RATE)
    write(made, samples)
    old_time = made.stat().st_mtime - 1000  # a .rec is often the older one
    without = survey(data)
    first = read_bird_age(data, without.recordings, PARAMS, tmp_path / "s1")
    assert [r.reason for r in first if not r.is_used][0].startswith(
        "cannot be read: 9.rec is missi"
    )
    made.with_suffix(".rec").write_bytes(rec)
    os.utime(made.with_suffix(".rec"), (old_time, old_time))
    found = survey(data)
    assert found.fingerprint != without.fingerprint
    again = read_bird_age(
        data, found.recordings, PARAMS, tmp_path / "s2", Before(tmp_path / "s1", first)
    )
    assert again.is_used.all()
    assert Before(tmp_path / "s2", again).serves(found.recordings, PARAMS)
    made.with_suffix(".rec").write_bytes(rec.replace(b"22050", b"32000"))
    third = read_bird_age(
        data, listed(data), PARAMS, tmp_path / "s3", Before(tmp_path / "s2", again)
    )
    assert {r.sample_rate_hz for r in third if r.path.endswith("cbin")} == {32_000}


def test_a_file_that_was_altered_with_its_time_kept_is_not_cut_anew_under_its_old_hash(tmp_path):
    root = tmp_path / "data"
    for i in range(2):
        put(root, f"{i}.wav", song(i, 12.0))
    first = read_bird_age(root, listed(root), PARAMS, tmp_path / "s1")
    path = root / "b1" / "45" / "0.wav"
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    put(root, "2.wav", song(2, 30.0))  # with more sound files are cut less finely
    before = Before(tmp_path / "s1", first)
    again = read_bird_age(root, listed(root), PARAMS, tmp_path / "s2", before)
    (skipped,) = (row for row in again if not row.is_used)
    assert skipped.path == "b1/45/0.wav"
    assert "is not the file that was read before" in skipped.reason


def test_the_hash_of_a_cbin_file_covers_what_says_how_it_is_read(tmp_path):
    path = tmp_path / "b1" / "45" / "0.cbin"
    write(path, *content(song(0), "cbin", rate=RATE))
    recording, *_ = read_bird_age(tmp_path, listed(tmp_path), PARAMS, tmp_path / "s")
    check_source(tmp_path, recording)
    rec = path.with_suffix(".rec")
    rec.write_text(rec.read_text().replace(f"ADFREQ = {RATE}", "ADFREQ = 22000"))
    with pytest.raises(BadSoundError, match="is not the file that was read before"):
        check_source(tmp_path, recording)


def withhold(monkeypatch, name, error, after=0):
    """Let nobody open files called ``name``; the first ``after`` times all is well."""
    real, opened = Path.open, []

    def guarded(path, *args, **kwargs):
        if path.name == name:
            opened.append(path)
            if len(opened) > after:
                raise error
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle")]
)
def test_a_file_that_the_system_does_not_give_is_tried_again_alone(
    data, tmp_path, monkeypatch, error
):
    with monkeypatch.context() as patch:
        withhold(patch, "2.wav", error)
        first = read_bird_age(data, listed(data), PARAMS, tmp_path / "s1")
    (skipped,) = (row for row in first if not row.is_used)
    assert skipped.path == "b1/45/2.wav"
    assert skipped.reason == f"cannot be read for now: {error.strerror}"
    before = Before(tmp_path / "s1", first)
    assert not before.serves(listed(data), PARAMS)
    with monkeypatch.context() as patch:
        withhold(patch, "2.wav", error)
        checked = counting(patch)
        same = read_bird_age(data, listed(data), PARAMS, tmp_path / "s2", before)
    assert checked == ["b1/45/2.wav"]
    assert same.table.equals(first.table)
    assert whole(tmp_path / "s2") == whole(tmp_path / "s1")
    checked = counting(monkeypatch)
    again = read_bird_age(data, listed(data), PARAMS, tmp_path / "s3", before)
    assert checked == ["b1/45/2.wav"]
    assert again.table.equals(read_bird_age(data, listed(data), PARAMS, tmp_path / "s4").table)
    assert Before(tmp_path / "s3", again).serves(listed(data), PARAMS)


@pytest.mark.parametrize("n_opened", [1, 2])  # for the samples, the hash, the spectrogram
def test_a_file_that_the_system_gives_up_half_way_is_not_judged_by_its_bytes(
    data, tmp_path, monkeypatch, n_opened
):
    withhold(monkeypatch, "2.wav", OSError(5, "Input/output error"), after=n_opened)
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (skipped,) = (row for row in found if not row.is_used)
    assert skipped.reason == "cannot be read for now: Input/output error"


def test_a_rec_that_the_system_does_not_give_is_named(data, tmp_path, monkeypatch):
    samples, rec = content(song(9), "cbin", rate=RATE)
    write(data / "b1" / "45" / "9.cbin", samples)
    (data / "b1" / "45" / "9.rec").write_bytes(rec)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sound_file, "_read_rec", refuse)
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (skipped,) = (row for row in found if not row.is_used)
    assert skipped.reason == "cannot be read for now: 9.rec: Permission denied"


def test_a_disk_that_fails_within_a_flac_file_is_no_damage_of_it(data, tmp_path, monkeypatch):
    path = data / "b1" / "45" / "2.flac"
    soundfile.write(path, song(7), RATE, subtype="PCM_16")
    monkeypatch.setattr("data_io.sound.file._n_decoded", lambda path, n_block: (1000, True))
    withhold(monkeypatch, "2.flac", OSError(5, "Input/output error"), after=1)
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (skipped,) = (row for row in found if not row.is_used)
    assert skipped.reason == "cannot be read for now: Input/output error"


def test_a_flac_file_that_is_not_decoded_a_second_time_ends_nothing(data, tmp_path, monkeypatch):
    path = data / "b1" / "45" / "2.flac"
    soundfile.write(path, song(7), RATE, subtype="PCM_16")
    real, n_read = sound_file._read_flac, []

    def failing(flac, n_samples):
        if 0 in n_read:  # it was decoded to its end once, to count its samples
            raise soundfile.LibsndfileError(2)
        block = real(flac, n_samples)
        n_read.append(len(block))
        return block

    monkeypatch.setattr(sound_file, "_read_flac", failing)
    found = read_bird_age(data, listed(data), PARAMS, tmp_path / "s")
    (skipped,) = (row for row in found if not row.is_used)
    assert skipped.reason.startswith("cannot be read for now: ")
