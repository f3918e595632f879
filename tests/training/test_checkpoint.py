from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from leanet.training import checkpoint


def test_tensors_and_metadata_come_back_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "float": torch.randn(2, 3, 4, 5, generator=generator),
        "strided": torch.randn(2, 3, 4, 5, generator=generator).to(
            memory_format=torch.channels_last
        ),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "bytes": torch.get_rng_state(),
        "count": torch.tensor(7),
        "gradient": torch.randn(2, generator=generator, requires_grad=True),
        "empty": torch.zeros(0),
    }
    metadata = {"epoch": 3, "best": float("inf"), "names": ["ä", "b"], "none": None}
    checkpoint.save(tmp_path / "deep" / "file.safetensors", tensors, metadata)
    loaded, told = checkpoint.load(tmp_path / "deep" / "file.safetensors")
    assert told == metadata
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    tensor = torch.arange(6.0)
    checkpoint.save(tmp_path / "a", {"whole": tensor, "view": tensor[2:4]}, {})
    assert checkpoint.load(tmp_path / "a")[0]["view"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "foreign", "missing"])
def test_what_is_no_weights_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    checkpoint.save(file, {"a": torch.randn(100)}, {})
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-50])
    elif damage == "text":
        file.write_text("not at all")
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        save_file({"a": torch.zeros(1)}, file)
    else:
        file.unlink()
    with pytest.raises(ValueError, match=r"weights\.safetensors is no weights file of leanet"):
        checkpoint.load(file)


def test_prefixes_are_put_on_and_taken_off() -> None:
    tensors = {"a.b": torch.zeros(1), "c": torch.ones(1)}
    mixed = {**checkpoint.under("net", tensors), **checkpoint.under("network", tensors)}
    assert set(mixed) == {"net.a.b", "net.c", "network.a.b", "network.c"}
    assert checkpoint.below("net", mixed) == tensors


def stepped(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        image = torch.randn(2, 3, 6, 6, generator=generator).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        net(image).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_restored_optimizer_takes_the_same_steps(
    memory_format: torch.memory_format, fused: bool, tmp_path: Path
) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 2)).to(memory_format=memory_format)
        return net, torch.optim.AdamW(net.parameters(), 0.01, fused=fused)

    net, optimizer = make()
    stepped(net, optimizer, 3, seed=1)
    checkpoint.save(tmp_path / "o", checkpoint.optimizer_tensors(optimizer), {})
    checkpoint.save(tmp_path / "n", net.state_dict(), {})
    restored, other = make()
    restored.load_state_dict(checkpoint.load(tmp_path / "n")[0])
    checkpoint.load_optimizer(other, checkpoint.load(tmp_path / "o")[0])
    stepped(net, optimizer, 3, seed=2)
    stepped(restored, other, 3, seed=2)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name]), name
