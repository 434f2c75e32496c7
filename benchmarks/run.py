"""Run every benchmark, each in a process of its own; print a table for the eye and one JSON document."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import ONE_THREAD
from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    "single",
    "panel",
    "paths",
    "fullgrad",
    "relevance",
    "attention",
    "engines",
    "loops",
    "shapley",
    "partition",
    "windows",
    "evaluation",
    "io",
)
LONG = ("engines", "loops", "evaluation")  # light, unless the whole is asked for


def main(arguments: list[str]) -> int:
    """Pass the arguments on; the table goes to standard error, the JSON to standard output.

    Args:
        arguments: of the scripts, such as ``--device cuda``, ``--strict``, ``--out benchmarks/results``; ``--whole``:
            what takes more than half an hour is not cut short.
    """
    here = Path(__file__).resolve().parent
    results: dict[str, Any] = {}
    failed, whole = False, "--whole" in arguments
    arguments = [a for a in arguments if a != "--whole"]
    for name in BENCHMARKS:
        command = [sys.executable, str(here / f"{name}.py"), *arguments]
        command += ["--light"] if name in LONG and not whole else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=os.environ | ONE_THREAD)
        failed |= done.returncode != 0
        last = done.stdout.strip().splitlines()[-1:]
        results[name] = json.loads(last[0]) if last else {"exit": done.returncode, "bars": []}
    Console(stderr=True, width=160).print(tabled(results))
    print(json.dumps(results, indent=1))
    return int(failed)


def tabled(results: Mapping[str, Any]) -> Table:
    """Every bar of every benchmark; one that failed to run has a row that says so."""
    table = Table("benchmark", "bar", "measured", "interval", "met")
    for name, result in results.items():
        if "exit" in result:
            table.add_row(name, "did not run", f"exit status {result['exit']}", "", "NO")
        if "absent" in result:
            table.add_row(name, "not measured", result["absent"], "", "-")
        for bar in result["bars"]:
            interval = "" if bar["interval"] is None else "{:.3g} to {:.3g}".format(*bar["interval"])
            measured = bar["measured"]
            shown = f"{measured:.3g}" if isinstance(measured, float) else json.dumps(measured)
            table.add_row(name, bar["bar"], shown, interval, "yes" if bar["met"] else "NO")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
