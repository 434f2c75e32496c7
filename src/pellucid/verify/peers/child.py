"""Run as a script by the interpreter that has the peers: one request in, one map out for each job.

The request is a JSON file: networks with their weights (``.npz``), inputs (``.npz``) and jobs. After each job one line
of JSON tells how it went. Nothing of Pellucid but the files beside this one is imported, so that any environment with
torch, MONAI and the peers will do.
"""

import copy
import importlib
import json
import os
import sys
import time
import warnings
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

# torchvision has no build beside a CPU torch, and does not import for want of its operators, of which no peer uses one
_ABSENT = "torchvision._meta_registrations"
PEERS = {
    "captum": ("with_captum", "with_captum_metrics"),
    "torchcam": ("with_torchcam",),
    "monai": ("with_monai",),
    "grad-cam": ("with_gradcam",),
    "zennit": ("with_zennit",),
    "shap": ("with_players",),
    "lime": ("with_players",),
    "SALib": ("with_players",),
    "scikit-learn": ("with_sklearn",),
    "quantus": ("with_quantus", "with_quantus_defects"),
}


@cache
def _beside(name: str) -> ModuleType:
    """A file of this folder, which stands for a package of its own: the one that it belongs to is not imported."""
    package = sys.modules.setdefault("peers", ModuleType("peers"))
    package.__path__ = [str(Path(__file__).parent)]
    return importlib.import_module(f"peers.{name}")


def _call(peer: str, name: str) -> Any:
    """A peer's call by name, from the files that have its calls."""
    return ChainMap(*(_beside(file).CALLS for file in PEERS[peer]))[name]


def _network(folder: Path, entry: dict[str, Any]) -> nn.Module:
    """A subject's network as a peer gets it."""
    networks = _beside("networks")
    net = networks.build(entry["network"], entry["channels"], entry["cells"])
    with np.load(folder / entry["weights"]) as stored:
        net.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    if entry["region"] is not None:
        with np.load(folder / entry["region"]) as stored:
            net = networks.Regional(net, entry["label"], torch.from_numpy(stored["mask"]))
    return networks.plain(net)


def _tensors(folder: Path, name: str | None) -> dict[str, Tensor]:
    if name is None:
        return {}
    with np.load(folder / name) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@contextmanager
def _fed(noise: Tensor | None) -> Iterator[None]:
    """Noise from a list, one entry a call, instead of the random generators that the peers ask."""
    if noise is None:
        yield
        return
    waiting, normal, randn_like = iter(noise), torch.normal, torch.randn_like

    def draw(*_positional: Any, **_named: Any) -> Tensor:
        return next(waiting)

    torch.normal, torch.randn_like = draw, draw
    try:
        yield
    finally:
        torch.normal, torch.randn_like = normal, randn_like


def _perform(folder: Path, request: dict[str, Any], job: dict[str, Any], nets: dict[str, nn.Module]) -> None:
    """One job on a network of its own: whatever a peer leaves on it stays there."""
    entry = request["subjects"][job["subject"]]
    if job["subject"] not in nets:
        nets[job["subject"]] = _network(folder, entry)
    x = _tensors(folder, entry["input"])["x"]
    call = _call(job["peer"], job["call"])
    with _fed(_tensors(folder, job["noise"]).get("noise")):
        found = call(
            copy.deepcopy(nets[job["subject"]]),
            x,
            entry["labels"],
            job["layer"],
            job["options"] | {"head": entry["head"]} | _tensors(folder, job["handed"]),
        )
    np.savez(folder / f"{job['id']}.npz", **{name: np.asarray(value) for name, value in found.items()})


def _versions() -> dict[str, str]:
    """Of what is installed here, by the names of the distributions."""
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return {name: found[name] for name in ("torch", "torchvision", "numpy", *PEERS) if name in found}


def _tell(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def main() -> None:
    """Do every job of the request; one that fails is told, and the next is done."""
    path = Path(sys.argv[1])
    request = json.loads(path.read_text(encoding="utf-8"))
    sys.modules.setdefault(_ABSENT, ModuleType(_ABSENT))
    nets: dict[str, nn.Module] = {}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # what peers print must not mix with the answers
        _tell(out, {"versions": _versions()})
        for job in request["jobs"]:
            started, error = time.perf_counter(), None
            try:
                _perform(path.parent, request, job, nets)
            except Exception as raised:  # a peer may raise anything; the reader is told what
                error = f"{type(raised).__name__}: {raised}"[:300]
            _tell(out, {"id": job["id"], "seconds": time.perf_counter() - started, "error": error})


if __name__ == "__main__":
    main()
