"""The quick start of the emulator's README, as it is written there, but for the ports."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from azure_cli import Az
from emulator import Emulator

HTTP, HTTPS = "http://localhost:10080", "https://localhost:10443"


def run(checks, root, arguments):
    checks.begin("Quick start of mock-server/README.md")
    text = (root / "mock-server/README.md").read_text().split("## Quick start", 1)[1].split("\n## ", 1)[0]
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.S))
    scenario = json.loads((root / "mock-server/demo.json").read_text())

    # Tried below by what it means; the ports are others.
    start = "cargo run -p mock-server --bin azure-emulator -- --scenario mock-server/demo.json --ca-out ca.pem"
    checks.check("one line starts it", lambda: blocks["sh"].strip(), start)
    with Emulator(arguments.emulator, scenario) as emulator, tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "ca.pem").write_text(pathlib.Path(emulator.ca).read_text())

        def execute(language, *command, **environment):
            code = blocks[language].replace(HTTPS, emulator.https).replace(HTTP, emulator.http)
            done = subprocess.run(
                [*command, code], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300,
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            return done.stdout

        checks.check("the Python SDK's part", lambda: "4096 bytes changed" in execute("python", sys.executable, "-c"), True)
        az = Az(arguments.az, emulator)
        path = f"{pathlib.Path(arguments.az).absolute().parent}:{os.environ['PATH']}"
        checks.check(
            "the part of az",
            lambda: "accesssas" in execute("bash", "bash", "-euc", PATH=path, AZURE_CONFIG_DIR=az.folder.name).lower(), True,
        )
        checks.check("nothing was asked that it does not model", emulator.unmodelled, [])
