"""The emulator as one static file (`make emulator`): that it needs nothing but itself."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request


def run(checks, root, program):
    checks.begin("Static file of the emulator")
    if not program.exists():
        checks.skip("it starts in an empty folder", f"{program.relative_to(root)} is not there; make emulator builds it")
        return
    checks.check("it is linked statically", lambda: any(
        words in ldd(program) for words in ("statically linked", "not a dynamic executable")
    ), True)
    checks.check("it starts in an empty folder, as the whole file system if we are root, and lists the demo's VM", lambda: start(program, root), ["web-01"])


def ldd(program):
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def start(program, root):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(program, folder)
        shutil.copy(root / "mock-server/demo.json", folder)
        alone = [shutil.which("chroot") or "/usr/sbin/chroot", folder, "/azure-emulator"] if os.geteuid() == 0 else ["./azure-emulator"]
        process = subprocess.Popen(
            [*alone, "--scenario", "demo.json", "--http-port", "0", "--https-port", "0", "--ready-file", "ready.json"],
            cwd=folder, env={}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        try:
            ready = pathlib.Path(folder, "ready.json")
            until = time.monotonic() + 60
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > until:
                    process.kill()
                    raise RuntimeError(process.communicate()[1])
                time.sleep(0.05)
            http = json.loads(ready.read_text())["http"]
            with urllib.request.urlopen(http + "/_emulator/state") as answer:
                return [vm["name"] for vm in json.load(answer)["virtualMachines"]]
        finally:
            process.terminate()
            process.communicate()
