"""``python -m pellucid`` is the command ``pellucid``."""

from pellucid.cli.main import run

if __name__ == "__main__":
    run()
