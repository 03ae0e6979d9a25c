"""Oracles: what was saved; a file that holds no pickle; a byte that was changed."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from pulvinar.core.errors import FileError
from pulvinar.learning import checkpoints

STATE = {
    "epoch": 3,
    "name": "latest",
    "none": None,
    "loss": 0.1 + 0.2,
    "weights": [torch.arange(6, dtype=torch.float64).reshape(2, 3).T, torch.tensor(7.5), torch.zeros(0, 4)],
    "nested": {"mask": torch.tensor([True, False]), "deeper": [{"step": torch.tensor(2, dtype=torch.int64)}, []]},
    "generator": torch.Generator().manual_seed(3).get_state(),
}


def same(left, right) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return set(left) == set(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def test_nested_state_comes_back_as_it_was(tmp_path):
    checkpoints.save(tmp_path / "latest.safetensors", STATE)
    assert same(STATE, checkpoints.load(tmp_path / "latest.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["latest.safetensors"]


def test_names_with_slashes_do_not_stand_for_nesting(tmp_path):
    state = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2)}}
    checkpoints.save(tmp_path / "c", state)
    assert same(state, checkpoints.load(tmp_path / "c"))


def test_tensors_that_share_memory_are_both_kept(tmp_path):
    whole = torch.arange(10.0)
    checkpoints.save(tmp_path / "c", {"whole": whole, "part": whole[2:4], "again": whole})
    assert same({"whole": whole, "part": whole[2:4], "again": whole}, checkpoints.load(tmp_path / "c"))


def test_the_file_is_plain_safetensors_without_a_pickle(tmp_path):
    checkpoints.save(tmp_path / "c", STATE)
    content = (tmp_path / "c").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["json"])["epoch"] == 3
    with pytest.raises(TypeError):  # an object that only a pickle could hold is refused
        checkpoints.save(tmp_path / "d", {"object": object()})
    assert not (tmp_path / "d").exists()


def test_a_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "latest.safetensors"
    checkpoints.save(path, STATE)
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[: len(content) // 2], content[:-1], b"\xff" * 8 + content[8:], b"no" * 500):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"latest\.safetensors"):
            checkpoints.load(path)


def test_a_safetensors_file_of_another_program_is_refused(tmp_path):
    for metadata in (None, {"format": "pt"}, {"json": "{"}, {"json": '{"x": {"@tensor": "missing"}}'}):
        save_file({"x": torch.zeros(2)}, tmp_path / "other", metadata=metadata)
        with pytest.raises(FileError, match="other"):
            checkpoints.load(tmp_path / "other")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match="nothing"):
        checkpoints.load(tmp_path / "nothing")


def test_an_older_checkpoint_survives_a_failed_write(tmp_path):
    checkpoints.save(tmp_path / "c", {"epoch": 1})
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path / "c", {"epoch": {1, object()}})
    assert checkpoints.load(tmp_path / "c") == {"epoch": 1}


def test_optimizer_state_goes_from_one_optimizer_to_another():
    def steps(optimizer, parameter, n):
        for _ in range(n):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()

    first = torch.nn.Parameter(torch.arange(1.0, 5))
    optimizer = torch.optim.AdamW([first], lr=0.1)
    steps(optimizer, first, 3)
    second = torch.nn.Parameter(first.detach().clone())
    other = torch.optim.AdamW([second], lr=0.1)
    states = [{name: value.clone() for name, value in s.items()} for s in checkpoints.optimizer_state(optimizer)]
    checkpoints.restore_optimizer(other, states)
    steps(optimizer, first, 3)
    steps(other, second, 3)
    assert torch.equal(first, second)


def test_an_optimizer_that_never_stepped_restores_to_nothing():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    checkpoints.restore_optimizer(optimizer, [{}])
    assert len(optimizer.state) == 0
