"""Integrated gradients against captum's default, and the peak memory of methods that take many samples."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import rivals
from measuring import ONE_THREAD, Setting, alternate, at_least, counted, deviation, ratio, run, table, within
from panel import explained
from peak import METHODS, integrated, small_volume
from subjects import densenet

STEPS = 50
EDGE, EDGE_3D = 224, 96
FEW, MANY = 16, 128  # a micro-batch is 8: both take several
GROWTH = 1.1  # of the peak between few and many samples: what an allocator may waste
# freed blocks of any size go back to the system at once: what is held is measured, not what the allocator keeps
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}


def peak(side: str, samples: int, edge: int, setting: Setting) -> float:
    """MiB that one map takes in a process of its own."""
    script = Path(__file__).with_name("peak.py")
    command = [sys.executable, str(script), side, str(samples), str(edge), "--device", setting.device]
    env = os.environ | ONE_THREAD | GIVES_BACK
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["mib"])


def memory(setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Peaks in fresh processes, before this one holds anything: a child inherits the high mark of its parent."""
    ours, captum = (peak(side, STEPS, EDGE, setting) for side in ("pellucid", "captum"))
    found: dict[str, Any] = {f"IntegratedGradients, {STEPS} steps": {"pellucid": ours, "captum": captum}}
    bars = [within(0.25, f"peak memory of IntegratedGradients, {STEPS} steps / captum's", round(ours / captum, 4))]
    for name in METHODS:
        few, many = (peak(name, samples, EDGE_3D, setting) for samples in (FEW, MANY))
        found[f"{name}, {EDGE_3D}^3"] = {f"{FEW} samples": few, f"{MANY} samples": many}
        what = f"peak memory of {name} at {EDGE_3D}^3, {MANY} samples / {FEW}"
        bars.append(within(GROWTH, what, round(many / few, 4)))
    return found, bars


def measure(setting: Setting) -> dict[str, Any]:
    """Memory first, then time, then the maps."""
    mib, bars = memory(setting)
    subject = densenet((EDGE, EDGE), setting.device)
    label, clock = subject.label, setting.clock
    ours = partial(explained, subject.model, subject.image, [integrated(STEPS)], label)
    theirs = partial(rivals.captum_integrated, subject.network, subject, label, STEPS)
    timed = alternate({"pellucid": ours, "captum": theirs}, setting.take(7), setting)
    (answer,) = ours()[1].values()
    (found,) = answer.maps.values()
    faster = ratio(timed["captum"], timed["pellucid"], clock)
    return {
        **subject.words,
        "memory model": small_volume(EDGE_3D).name,
        "peak_memory_mib": mib,
        "times": table(timed, "pellucid", clock),
        "passes": counted(subject.network, ours),
        "deviation from captum": deviation(found, theirs()),
        "bars": [at_least(2, f"{subject.name}: captum's default / IntegratedGradients, {STEPS} steps", faster), *bars],
    }


if __name__ == "__main__":
    sys.exit(run("paths", measure))
