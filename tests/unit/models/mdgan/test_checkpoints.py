"""Trainings and decoders on disk: taken over to the last bit, or refused by name."""

import dataclasses
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.mdgan import checkpoints, tensor_files
from models.mdgan.checkpoints import load_decoder, load_training, save_decoder, save_training
from models.mdgan.model import Mdgan, MdganParams
from models.mdgan.training import Evaluation, train
from tests.helpers.tiny_mdgan import Minibatches

TINY = MdganParams(
    latent_dim=3, width=2, dense_width=4, n_components=6, disc_width=2, adversarial_from=0.0,
    batch_size=4, n_snippets=32, n_reports=4, lr=5e-3,
)  # fmt: skip
FIRST = "nets/encoder/dense.project.weight"
DATA = torch.rand(32, 1, 129, 16, generator=torch.Generator().manual_seed(0))
MINIBATCHES = Minibatches(DATA)
FACTS = {"data_sha256": "a1" * 32, "seed": 0}


def build(seed=0, **changes):
    return Mdgan(dataclasses.replace(TINY, **changes), n_frames=16, seed=seed)


def trained(n_steps=2, **changes):
    model = build(**changes)
    for _ in range(n_steps):
        model.train_step(MINIBATCHES.sample(4, model.rng))
    return model


def measure(model):
    """Something of every weight that is kept, from statistics too."""
    decoded = model.decode(model.encode(DATA[:8]))
    found = {"valid/mean": float(decoded.double().mean()), "valid/std": float(decoded.std())}
    return Evaluation(found)


def leaves(state, name=""):
    """Tensors and values of a state by their path."""
    if isinstance(state, dict):
        return {k: v for key in state for k, v in leaves(state[key], f"{name}/{key}").items()}
    return {name: state.tolist() if isinstance(state, torch.Tensor) else as_json(state)}


def as_json(value):
    return json.loads(json.dumps(value))


def assert_same_state(a, b):
    found, expected = leaves(a.state_dict()), leaves(b.state_dict())
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


class StopError(Exception):
    """As when a trial is stopped."""


@pytest.mark.parametrize("monitor", [True, False])
@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(normalisation, monitor, tmp_path):
    # The adversarial terms come in before the interruption or after it.
    changes = {
        "normalisation": normalisation, "monitor": monitor, "prior": "student_t",
        "ema_decay": 0.9 * monitor, "adversarial_from": 0.25 if monitor else 0.75,
        "channels_last": monitor, "order": "alternating" if monitor else "joint",
    }  # fmt: skip
    whole, stopped, resumed = (build(seed, **changes) for seed in (3, 3, 8))
    reports, reports_before, reports_after = [], [], []

    def stop_at_second(progress):
        reports_before.append(progress)
        if progress.report == 2:
            save_training(stopped, tmp_path, FACTS)
            raise StopError

    train(whole, MINIBATCHES, measure, reports.append)
    with pytest.raises(StopError):
        train(stopped, MINIBATCHES, measure, stop_at_second)
    load_training(resumed, tmp_path, data_sha256=FACTS["data_sha256"])
    assert resumed.snippets_seen == 16
    assert_same_state(resumed, stopped)
    train(resumed, MINIBATCHES, measure, reports_after.append)
    assert len(reports) == 4
    assert reports_before + reports_after == reports
    assert_same_state(resumed, whole)
    has_moments = bool(resumed.optimizers["monitor_disc"].state_dict()["state"])
    assert has_moments is monitor


def test_a_training_stays_whole_when_its_file_is_written_over(tmp_path):
    model, resumed = trained(), build(seed=1)
    save_training(model, tmp_path)
    load_training(resumed, tmp_path)
    with (tmp_path / "training.safetensors").open("r+b") as file:
        file.write(bytes(len(file.read())))
        file.seek(0)
        file.write(bytes((tmp_path / "training.safetensors").stat().st_size))
    assert_same_state(resumed, model)


def test_tensors_have_flat_names_and_the_rest_stands_in_json(tmp_path):
    model = trained()
    save_training(model, tmp_path, FACTS)
    assert {path.name for path in tmp_path.iterdir()} == {"training.safetensors", "training.json"}
    tensors = load_file(tmp_path / "training.safetensors")
    weight = model.encoder.state_dict()["dense.project.weight"]
    assert torch.equal(tensors[FIRST], weight)
    moment = model.optimizers["encoder"].state_dict()["state"][0]["exp_avg"]
    assert torch.equal(tensors["optimizers/encoder/state/0/exp_avg"], moment)
    assert tensors["optimizers/encoder/state/0/step"] > 0
    assert tensors["rng"].dtype == tensors["monitor_rng"].dtype == torch.uint8
    content = json.loads((tmp_path / "training.json").read_text())
    assert content["format_version"] == 2
    assert content["facts"] == FACTS
    assert content["params"] == dataclasses.asdict(model.params)
    assert content["shape"] == dataclasses.asdict(model.shape)
    assert content["values"]["snippets_seen"] == 8
    assert content["sha256"] == tensor_files.file_sha256(tmp_path / "training.safetensors")


class Longer(Mdgan):
    """More in its state."""

    def state_dict(self):
        nets = {name: {"w": torch.full((2,), 0.5)} for name in ("encoder", "generator")}
        return {**super().state_dict(), "more": nets, "average": {"n": 7, "decay": 0.1 + 0.2}}

    def load_state_dict(self, state):
        self.taken_over = state["more"], state["average"]
        super().load_state_dict(state)


def test_new_tensors_and_values_of_a_state_come_back(tmp_path):
    model = Longer(TINY, 16, seed=0)
    save_training(model, tmp_path)
    load_training(model, tmp_path)
    nets, average = model.taken_over
    assert average == {"n": 7, "decay": 0.1 + 0.2}
    assert {name: net["w"].tolist() for name, net in nets.items()} == {
        "encoder": [0.5, 0.5],
        "generator": [0.5, 0.5],
    }
    with pytest.raises(ValueError, match="has an unknown tensor more/encoder/w"):
        load_training(build(), tmp_path)
    save_training(build(), tmp_path)
    with pytest.raises(ValueError, match="lacks the tensor more/encoder/w"):
        load_training(model, tmp_path)


@pytest.mark.parametrize("key", ["a/b", "7", -1, 2.5])
def test_a_key_that_would_come_back_as_another_is_refused(key, tmp_path):
    model = build()
    state = model.state_dict()
    model.state_dict = lambda: {**state, "more": {key: 1}}
    with pytest.raises(ValueError, match=re.escape(f"'more/{key}': a key of a state, {key!r}")):
        save_training(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


# Refused, and the model left as it was


@pytest.fixture
def saved(tmp_path):
    save_training(trained(), tmp_path, FACTS)
    return tmp_path


def assert_refused(folder, message, error=ValueError, model=None, **how):
    model = model or build(seed=5)
    before = leaves(model.state_dict())
    with pytest.raises(error, match=message):
        load_training(model, folder, **how)
    assert leaves(model.state_dict()) == before


def edit_json(folder, change):
    path = folder / "training.json"
    content = json.loads(path.read_text())
    del content["seal"]
    change(content)
    tensor_files.write_json(path, content)  # with a seal that fits


def edit_tensors(folder, change):
    """Change tensors with a hash that fits."""
    path = folder / "training.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    edit_json(folder, lambda content: content.update(sha256=tensor_files.file_sha256(path)))


def test_another_format_is_refused(saved):
    edit_json(saved, lambda content: content.update(format_version=1))
    assert_refused(saved, r"training\.json has format 1, this version reads 2: train .* again")
    path = saved / "training.json"
    content = json.loads(path.read_text())
    del content["seal"]  # as version 0.5.0 wrote it
    path.write_text(json.dumps(content))
    assert_refused(saved, r"training\.json has format 1, this version reads 2: train .* again")


@pytest.mark.parametrize("change", ["altered", "cut short"])
def test_a_changed_file_is_refused(saved, change):
    path = saved / "training.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content if change == "altered" else content[:-4]))
    message = r"training\.safetensors has the hash \w{12}, training\.json says \w{12}: .* Restore"
    assert_refused(saved, message)


@pytest.mark.parametrize(
    "name",
    [
        "nets/generator/dense.expand.weight",
        "optimizers/encoder/state/0/exp_avg",
        "optimizers/encoder/state/0/step",
        "monitor_rng",
    ],
)
def test_a_missing_or_unknown_tensor_is_named(saved, name):
    edit_tensors(saved, lambda tensors: tensors.update({f"{name}2": tensors.pop(name)}))
    assert_refused(saved, rf"training\.safetensors lacks the tensor {name}: .* Begin .* anew")
    edit_tensors(saved, lambda tensors: tensors.update({name: tensors[f"{name}2"].clone()}))
    assert_refused(saved, rf"training\.safetensors has an unknown tensor {name}2: .* Begin")


def test_moments_that_are_missing_whole_are_named(saved):
    prefix = "optimizers/encoder/state/1/"
    edit_tensors(saved, lambda t: [t.pop(name) for name in list(t) if name.startswith(prefix)])
    assert_refused(saved, f"lacks the tensor {prefix}exp_avg:")


@pytest.mark.parametrize("name", [FIRST, "optimizers/encoder/state/0/exp_avg"])
def test_a_tensor_of_another_shape_or_type_is_named(saved, name):
    edit_tensors(saved, lambda tensors: tensors.update({name: tensors[name][:1].clone()}))
    found, expected = (re.escape(f"[{n}, 2064] float32") for n in (1, 6))
    assert_refused(saved, f"tensor {name} is {found}, the network's is {expected}: .* Begin")
    edit_tensors(saved, lambda tensors: tensors.update({name: torch.zeros(6, 2064).double()}))
    assert_refused(
        saved, rf"tensor {name} is \[6, 2064\] float64, the network's is \[6, .* float32"
    )


def test_other_parameters_are_refused(saved):
    message = r"training\.json: lr in params is 0\.005, the model's is 0\.001: .* Begin"
    assert_refused(saved, message, model=build(lr=1e-3, n_reports=2))
    edit_json(saved, lambda content: content["params"].pop("beta1"))
    assert_refused(saved, "beta1 in params is 'not there', the model's is 0.5")
    edit_json(saved, lambda content: content["params"].update(beta1=0.5, momentum=0.9))
    assert_refused(saved, "momentum in params is 0.9, the model's is 'not there'")


def test_another_network_shape_is_refused(saved):
    model = Mdgan(TINY, n_frames=8, seed=0)
    assert_refused(saved, "n_frames in shape is 16, the model's is 8: ", model=model)


def test_other_data_are_refused(saved):
    message = f"has the data_sha256 {'a1' * 32}, the data given {'b2' * 32}: .* Give the data"
    assert_refused(saved, message, data_sha256="b2" * 32)
    save_training(trained(), saved)
    assert_refused(saved, "has the data_sha256 None, the data given a1", data_sha256="a1" * 32)
    load_training(build(), saved)


def test_missing_values_and_entries_are_named(saved):
    edit_json(saved, lambda content: content["values"].pop("snippets_seen"))
    assert_refused(saved, r"training\.json lacks the value snippets_seen")
    edit_json(saved, lambda content: content["values"].update(snippets_seen=8, more=1))
    assert_refused(saved, r"training\.json has an unknown value more")
    edit_json(saved, lambda content: content.pop("params"))
    assert_refused(saved, r"training\.json lacks the entry params")


@pytest.mark.parametrize("name", ["training.json", "training.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    assert_refused(saved, rf"{name} is missing", FileNotFoundError)


def test_json_that_was_cut_short_is_refused(saved):
    path = saved / "training.json"
    path.write_text(path.read_text()[:-10])
    assert_refused(saved, r"training\.json is not JSON .*cut short. Restore it")


class Payload:
    """Code that runs when the pickle is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(saved, tmp_path):
    trap, path = tmp_path / "run", saved / "training.safetensors"
    path.write_bytes(pickle.dumps(Payload(trap), protocol=2))
    pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap works
    trap.unlink()
    edit_json(saved, lambda content: content.update(sha256=tensor_files.file_sha256(path)))
    assert_refused(saved, "is no safetensors file", ValueError)
    assert not trap.exists()


# A crash while saving


def crash(*args, **kwargs):
    raise StopError


def test_a_crash_before_the_json_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "write_json", crash)
    with pytest.raises(StopError):
        save_training(trained(), tmp_path)
    assert_refused(tmp_path, "written last, so nothing whole", FileNotFoundError)


def test_a_crash_between_the_files_of_a_later_training_is_noticed(saved, monkeypatch):
    monkeypatch.setattr(checkpoints, "write_json", crash)
    with pytest.raises(StopError):
        save_training(trained(n_steps=3), saved, FACTS)
    assert_refused(saved, "has the hash")


@pytest.mark.parametrize("writer", ["save_file", "json"])
def test_a_crash_within_a_file_leaves_the_one_before(saved, monkeypatch, writer):
    def half(tensors, path):
        path.write_bytes(b"half")
        raise StopError

    def half_text(path, text, encoding):
        path.write_bytes(b"half")
        raise StopError

    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with monkeypatch.context() as m:
        if writer == "save_file":
            m.setattr(tensor_files, "save_file", half)
        else:
            m.setattr(Path, "write_text", half_text)
        with pytest.raises(StopError):
            save_training(trained(), saved, FACTS)  # of the same bits
    assert {name: (saved / name).read_bytes() for name in before} == before
    load_training(build(), saved)


def test_facts_that_are_no_json_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_training(build(), tmp_path, {"loss": float("nan")})
    assert_refused(tmp_path, "is missing", FileNotFoundError)


# Decoders


@pytest.fixture
def decoder(tmp_path):
    save_decoder(trained(), tmp_path, {"note": "é"})
    return tmp_path


def edit_shape(folder, change):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    del content["seal"]
    change(content["shape"])
    tensor_files.write_json(path, content)


def test_tensors_that_do_not_fit_the_shape_are_named(decoder):
    edit_shape(decoder, lambda shape: shape.update(dense_width=5))
    found, expected = re.escape("[4, 6] float32"), re.escape("[5, 6] float32")
    message = rf"encoder\.safetensors: tensor dense\.correct\.0\.weight is {found}, .* {expected}: "
    with pytest.raises(ValueError, match=message):
        load_decoder(decoder)
    edit_shape(decoder, lambda shape: shape.update(dense_width=0))
    with pytest.raises(
        ValueError, match=r"encoder\.safetensors has an unknown tensor dense\.correct"
    ):
        load_decoder(decoder)
    edit_shape(decoder, lambda shape: shape.update(dense_width=4, normalisation="batch"))
    with pytest.raises(
        ValueError,
        match=r"encoder\.safetensors lacks the tensor convolutions\.net\.1\.encoded_mean",
    ):
        load_decoder(decoder)


def test_a_shape_of_another_version_is_refused(decoder):
    edit_shape(decoder, lambda shape: shape.update(depth=5))
    with pytest.raises(ValueError, match=r"model\.json has an unknown value of shape, depth: "):
        load_decoder(decoder)
    edit_shape(decoder, lambda shape: [shape.pop(name) for name in ("depth", "n_frames")])
    with pytest.raises(ValueError, match=r"model\.json lacks the value of shape, n_frames: "):
        load_decoder(decoder)


def test_a_missing_file_of_a_decoder_is_named(decoder):
    (decoder / "generator.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"generator\.safetensors is missing, model\.json"):
        load_decoder(decoder)
    (decoder / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing"):
        load_decoder(decoder)


def test_a_loaded_decoder_decodes_as_before(decoder):
    encoder, generator, content = load_decoder(decoder)
    model = trained()
    with torch.no_grad():
        found = generator(encoder(DATA))
    np.testing.assert_array_equal(found, model.decode(model.encode(DATA)))
    assert content["note"] == "é"


def test_averaged_weights_are_kept(tmp_path):
    model = trained(ema_decay=0.9)
    save_decoder(model, tmp_path, {})
    encoder, generator, _ = load_decoder(tmp_path)
    for name, net in (("encoder", encoder), ("generator", generator)):
        found, now = net.state_dict(), model.nets[name].state_dict()
        for key, value in model.averaged[name].module.state_dict().items():
            assert torch.equal(found[key], value)
        assert any(not torch.equal(found[key], now[key]) for key in found)
