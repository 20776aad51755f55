"""The command line of Azure (`az`), unmodified, against the emulator."""

import json
import os
import subprocess
import tempfile

import emulator as azure

CLOUD = "AzureEmulator"


class Az:
    """`az` with a configuration folder of its own, so that it knows no login but the ones made here."""

    def __init__(self, program, emulator):
        self.program = program
        self.folder = tempfile.TemporaryDirectory(prefix="az-")
        self.environment = dict(
            os.environ,
            AZURE_CONFIG_DIR=self.folder.name,
            REQUESTS_CA_BUNDLE=emulator.ca,
            AZURE_CORE_INSTANCE_DISCOVERY="false",
            AZURE_CORE_COLLECT_TELEMETRY="no",
            AZURE_CORE_LOGIN_EXPERIENCE_V2="off",
        )

    def __call__(self, *arguments):
        done = subprocess.run(
            [self.program, *arguments, "--output", "json"],
            env=self.environment, capture_output=True, text=True, check=False, timeout=300,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def login(self, tenant=azure.TENANT, secret=azure.SECRET):
        return self("login", "--service-principal", "--username", azure.CLIENT, "--password", secret, "--tenant", tenant)


def names(resources):
    return sorted(resource["name"] for resource in resources)


def run(checks, emulator, program):
    checks.begin("az")
    az = Az(program, emulator)
    checks.check("the emulator as a cloud", lambda: az("cloud", "register", "--name", CLOUD, "--endpoint-resource-manager", emulator.https))
    checks.check("which is then used", lambda: az("cloud", "set", "--name", CLOUD))
    checks.refused("a wrong secret", lambda: az.login(secret="wrong"), "AADSTS7000215")
    checks.check("login", lambda: az.login()[0]["id"], azure.SUBSCRIPTION)
    checks.check("VMs over three pages", lambda: names(az("vm", "list")), ["web-01", "web-02", "web-03"])
    checks.check("their power states", lambda: {vm["powerState"] for vm in az("vm", "list", "--show-details")}, {"VM running"})
    checks.check("a VM", lambda: az("vm", "show", "-g", "rg1", "-n", "web-01")["storageProfile"]["dataDisks"][0]["lun"], 5)
    snapshot = ["-g", "rg1", "-n", "az1"]
    checks.check(
        "an incremental snapshot",
        lambda: az("snapshot", "create", *snapshot, "--source", "web-01-data", "--incremental", "true")["incremental"], True,
    )
    checks.check("its tags", lambda: az("snapshot", "update", *snapshot, "--set", "tags.a=b")["tags"]["a"], "b")
    checks.check("it is listed", lambda: names(az("snapshot", "list", "-g", "rg1")), ["az1"])
    checks.check(
        "access to it",
        lambda: az("snapshot", "grant-access", *snapshot, "--duration-in-seconds", "600")["accessSAS"].startswith(emulator.https), True,
    )
    checks.check("access given back", lambda: az("snapshot", "revoke-access", *snapshot))
    checks.check("its deletion", lambda: az("snapshot", "delete", *snapshot))
    checks.refused("a snapshot that is not there", lambda: az("snapshot", "show", *snapshot), "ResourceNotFound")
    disk = ["-g", "rg1", "-n", "az-upload"]
    checks.check(
        "a disk for upload",
        lambda: az("disk", "create", *disk, "--upload-type", "Upload", "--upload-size-bytes", str((20 << 20) + 512),
                   "--sku", "Standard_LRS")["diskState"],
        "ReadyToUpload",
    )
    checks.check(
        "access for writing",
        lambda: "sig=" in az("disk", "grant-access", *disk, "--access-level", "Write", "--duration-in-seconds", "600")["accessSAS"], True,
    )
    checks.refused("access given back without a footer", lambda: az("disk", "revoke-access", *disk), "footer")
    checks.check("its deletion", lambda: az("disk", "delete", *disk, "--yes"))
    checks.check("a VM is deallocated", lambda: az("vm", "deallocate", "-g", "rg1", "-n", "web-02"))
    checks.check("and deleted", lambda: az("vm", "delete", "-g", "rg1", "-n", "web-02", "--yes"))
    checks.check("nothing was asked that the emulator does not model", emulator.unmodelled, [])
