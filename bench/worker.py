"""Runs one task of one framework in this process and writes the results as JSON; started by compare.py."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    job = json.loads(sys.argv[1])
    framework = importlib.import_module(f"frameworks.{job['framework']}_")
    try:
        results = framework.run(job["task"], job["config"], job["threads"], job["quick"])
        report = {"versions": framework.versions(), "results": results}
    except ModuleNotFoundError as error:
        report = {"missing": error.name}
    Path(job["out"]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
