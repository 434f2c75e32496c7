"""Tensors on disk: what comes back, several sizes and types, and a disk that cannot be written."""

import gc
from pathlib import Path

import pytest
import torch

from pellucid.core.errors import UnwritableOutput
from pellucid.io.spool import Spool


def test_what_was_put_down_comes_back(tmp_path: Path) -> None:
    spool, given = Spool.opened(tmp_path), [torch.rand(1, 3, 5), torch.rand(2, 4), torch.arange(7).short()]
    for tensor in given:
        spool.append(tensor)
    assert len(spool) == 3
    for back, tensor in zip(spool, given, strict=True):
        assert back.dtype == tensor.dtype
        assert torch.equal(back, tensor)
    assert [tuple(t.shape) for t in spool[1:]] == [(2, 4), (7,)]


def test_a_change_of_what_came_back_stays_in_memory(tmp_path: Path) -> None:
    spool = Spool.opened(tmp_path)
    spool.append(torch.zeros(4))
    spool[0].fill_(1)
    assert float(spool[0].sum()) == 0


def test_no_file_is_seen_and_none_is_left(tmp_path: Path) -> None:
    spool = Spool.opened(tmp_path)
    spool.append(torch.zeros(1000))
    assert not list(tmp_path.iterdir()), "a killed process would leave images behind"
    del spool
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutput, match="put down"):
        Spool.opened(tmp_path / "none")
