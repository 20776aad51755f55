"""The command line of Azure (`az`), unmodified, against the emulator."""

import json
import os
import subprocess
import tempfile
import uuid

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

    def fails(self, *arguments):
        """What it says, all of its log included, when it must not succeed."""
        done = subprocess.run(
            [self.program, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=300,
        )
        return done.stderr if done.returncode else None

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
    checks.refused("an unknown tenant", lambda: az.login(tenant=str(uuid.uuid4())))
    checks.check("login", lambda: az.login()[0]["id"], azure.SUBSCRIPTION)
    checks.check("resource groups over two pages", lambda: names(az("group", "list")), ["rg1", "rg2"])
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
    upload(checks, az)
    machine(checks, az)
    checks.check(
        "nothing else was asked that the emulator does not model",
        lambda: [line for line in emulator.unmodelled() if "/deployments/" not in line], [],
    )


def upload(checks, az):
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


def machine(checks, az):
    """A VM is taken apart and put together again: another one, of its disks."""
    vm = ["-g", "rg1", "-n", "web-01"]
    checks.check("a VM is deallocated", lambda: az("vm", "deallocate", *vm))
    checks.check("its power state", lambda: az("vm", "show", *vm, "--show-details")["powerState"], "VM deallocated")
    checks.check("a data disk is detached", lambda: az("vm", "disk", "detach", "-g", "rg1", "--vm-name", "web-01", "--name", "web-01-data"))
    checks.refused("deletion of a disk that is attached", lambda: az("disk", "delete", "-g", "rg1", "-n", "web-01-os", "--yes"), "attached")
    checks.check("the VM is deleted", lambda: az("vm", "delete", *vm, "--yes"))
    subnet = checks.check("its NIC is left", lambda: az("network", "nic", "show", "-g", "rg1", "-n", "web-01-nic"))["ipConfigurations"][0]["subnet"]["id"]
    nic = checks.check("a new NIC", lambda: az("network", "nic", "create", "-g", "rg1", "-n", "az-nic", "--subnet", subnet)["NewNIC"])
    disk = checks.check("the OS disk is free", lambda: az("disk", "show", "-g", "rg1", "-n", "web-01-os"))
    checks.check("its state", lambda: disk["diskState"], "Unattached")
    checks.gap(
        "az vm create",
        lambda: "EmulatorDoesNotModel" in az.fails(
            "vm", "create", "-g", "rg1", "-n", "az-vm", "--attach-os-disk", "web-01-os", "--os-type", "linux", "--nics", "az-nic",
            "--size", "Standard_D2s_v5", "--debug"),
        True, "it sends a template deployment, which the emulator does not model (a request of its own makes the VM instead)",
    )
    new = ["-g", "rg1", "-n", "az-vm"]
    body = {
        "location": azure.REGION,
        "zones": disk["zones"],
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": {"osDisk": {"createOption": "Attach", "osType": "Linux", "managedDisk": {"id": disk["id"]}}},
            "networkProfile": {"networkInterfaces": [{"id": nic["id"]}]},
        },
    }
    url = f"/subscriptions/{azure.SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/az-vm?api-version=2024-11-01"
    checks.check("a VM of that disk (az rest)", lambda: az("rest", "--method", "put", "--url", url, "--body", json.dumps(body))["name"], "az-vm")
    checks.check("it is waited for", lambda: az("vm", "wait", *new, "--created", "--timeout", "60"))
    checks.check("a data disk is attached", lambda: az("vm", "disk", "attach", "-g", "rg1", "--vm-name", "az-vm", "--name", "web-01-data", "--lun", "3"))
    checks.check("the VM has it", lambda: [disk["lun"] for disk in az("vm", "show", *new)["storageProfile"]["dataDisks"]], [3])
    checks.check("VMs over pages again", lambda: names(az("vm", "list")), ["az-vm", "web-02", "web-03"])
