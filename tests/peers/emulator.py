"""The emulator as a process, and what a test does to its disks from outside."""

import json
import pathlib
import subprocess
import tempfile
import time
import urllib.request

TENANT = "7e0a3c52-6d1f-4b8e-9c24-5f1d2a3b4c5d"
CLIENT = "c1a5b0f4-2e63-4d19-8a77-90be12cd34ef"
SECRET = "em8Q~lator+secret/with=odd&chars"
# Another principal, which may look but not make snapshots.
READER = "d2b6c1a5-3f74-4e2a-9b88-a1cf23de4500"
SUBSCRIPTION = "5ab5c21b-0e52-4a6f-9d3c-7788990011aa"
REGION = "westeurope"

MIB = 1 << 20

ACCOUNT = "stage"
ACCOUNT_KEY = "cGVlcnMgc3RvcmFnZSBhY2NvdW50IGtleSwgb2Ygbm8gcmVhbCBhY2NvdW50ISE="

SCENARIO = {
    "tenants": [
        {
            "id": TENANT,
            "principals": [
                {"clientId": CLIENT, "clientSecret": SECRET},
                {"clientId": READER, "clientSecret": SECRET, "deniedActions": ["Microsoft.Compute/snapshots/write"]},
            ],
        }
    ],
    "subscriptions": [{"id": SUBSCRIPTION, "displayName": "Emulator"}],
    "storageAccounts": [{"name": ACCOUNT, "keys": [ACCOUNT_KEY]}],
    "virtualMachines": [
        {
            "name": "web-01",
            "resourceGroup": "rg1",
            "zone": "1",
            "tags": {"env": "prod"},
            "osDisk": {
                "caching": "ReadWrite",
                "disk": {
                    "name": "web-01-os",
                    "size": "64MiB",
                    "osType": "Linux",
                    "content": [{"pattern": {"seed": 1, "offset": 0, "length": "9MiB"}}],
                },
            },
            "dataDisks": [
                {
                    "lun": 5,
                    "caching": "ReadOnly",
                    "disk": {
                        "name": "web-01-data",
                        "size": "32MiB",
                        "content": [
                            {"ranges": {"seed": 2, "offset": 0, "count": 100, "length": 4096, "stride": "64KiB"}}
                        ],
                    },
                }
            ],
        },
        {"name": "web-02", "resourceGroup": "rg1", "osDisk": {"disk": {"name": "web-02-os", "size": "64MiB", "osType": "Linux"}}},
        {"name": "web-03", "resourceGroup": "rg2", "osDisk": {"disk": {"name": "web-03-os", "size": "64MiB", "osType": "Linux"}}},
    ]
}


class Emulator:
    """A running emulator. Lists have pages of one entry, page lists of seven ranges; long-running operations are found
    in progress `polls` times."""

    def __init__(self, program, scenario=SCENARIO, polls=1):
        self.folder = tempfile.TemporaryDirectory(prefix="azure-emulator-")
        folder = pathlib.Path(self.folder.name)
        (folder / "scenario.json").write_text(json.dumps(scenario))
        self.ca = str(folder / "ca.pem")
        ready = folder / "ready.json"
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(
            [program, "--scenario", folder / "scenario.json", "--ca-out", self.ca, "--http-port", "0",
             "--https-port", "0", "--arm-page-size", "1", "--page-range-limit", "7", "--polls", str(polls),
             "--ready-file", ready],
            stdout=self.log, stderr=subprocess.STDOUT,
        )
        until = time.monotonic() + 60
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise RuntimeError(f"the emulator did not start: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        addresses = json.loads(ready.read_text())
        self.http, self.https = addresses["http"], addresses["https"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def control(self, method, path, body=None):
        request = urllib.request.Request(self.http + "/_emulator/" + path, data=body, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def guest_write(self, disk, offset, data):
        self.control("PUT", f"disks/content?disk={disk}&offset={offset}", data)

    def guest_discard(self, disk, offset, length):
        self.control("POST", f"disks/discard?disk={disk}", json.dumps({"offset": offset, "length": length}).encode())

    def read(self, disk):
        return self.control("GET", f"disks/content?disk={disk}&offset=0")

    def state(self):
        return json.loads(self.control("GET", "state"))

    def unmodelled(self):
        return json.loads(self.control("GET", "unmodelled"))
