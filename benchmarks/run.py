"""Run every benchmark beside this file and print one JSON document: benchmark name -> its result."""

import json
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Each benchmark is a script that prints one JSON object on its last line."""
    here = Path(__file__).resolve().parent
    scripts = sorted(p for p in here.glob("*.py") if p.name != Path(__file__).name)
    if not scripts:
        print("no benchmark yet: see benchmarks/README.md", file=sys.stderr)
    results: dict[str, object] = {}
    failed = False
    for script in scripts:
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        sys.stderr.write(done.stderr)
        failed |= done.returncode != 0
        last = done.stdout.strip().splitlines()[-1:]
        results[script.stem] = json.loads(last[0]) if last and done.returncode == 0 else {"exit": done.returncode}
    print(json.dumps(results, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
