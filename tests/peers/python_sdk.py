"""Azure's SDK for Python, unmodified, against the emulator; and against what our own programs saved and made."""

import os
import pathlib
import subprocess
import uuid

import emulator as azure
from emulator import MIB

CONTENT = b"\x07" * 8192


def clients(emulator):
    from azure.identity import ClientSecretCredential
    from azure.mgmt.compute import ComputeManagementClient
    from azure.mgmt.network import NetworkManagementClient

    def credential(tenant=azure.TENANT, secret=azure.SECRET):
        return ClientSecretCredential(
            tenant, azure.CLIENT, secret, authority=emulator.https, disable_instance_discovery=True
        )

    target = {"base_url": emulator.https, "credential_scopes": [emulator.https + "/.default"], "polling_interval": 0.1}
    compute = ComputeManagementClient(credential(), azure.SUBSCRIPTION, **target)
    network = NetworkManagementClient(credential(), azure.SUBSCRIPTION, **target)
    return credential, compute, network


class Sdk:
    """The few things that every part of the scenario does."""

    def __init__(self, emulator):
        from azure.storage.blob import BlobClient

        self.emulator = emulator
        self.blob = BlobClient.from_blob_url
        self.credential, self.compute, self.network = clients(emulator)

    def snapshot(self, group, name, disk):
        body = {
            "location": azure.REGION,
            "tags": {"made-by": "sdk"},
            "properties": {
                "incremental": True,
                "creationData": {"createOption": "Copy", "sourceResourceId": self.compute.disks.get(group, disk).id},
            },
        }
        return self.compute.snapshots.begin_create_or_update(group, name, body).result()

    def open_snapshot(self, group, name):
        body = {"access": "Read", "durationInSeconds": 3600}
        return self.compute.snapshots.begin_grant_access(group, name, body).result().access_sas

    def open_disk(self, group, name):
        body = {"access": "Write", "durationInSeconds": 3600}
        return self.compute.disks.begin_grant_access(group, name, body).result().access_sas

    def image(self, group, disk):
        """All bytes of a disk, by way of a snapshot of its own."""
        name = f"read-{uuid.uuid4().hex[:8]}"
        self.snapshot(group, name, disk)
        try:
            blob = self.blob(self.open_snapshot(group, name))
            data = bytearray(blob.get_blob_properties().size - 512)
            for page in blob.list_page_ranges():
                end = min(page.end + 1, len(data))
                if not page.cleared and page.start < end:
                    data[page.start : end] = blob.download_blob(offset=page.start, length=end - page.start).readall()
            self.compute.snapshots.begin_revoke_access(group, name).result()
            return bytes(data)
        finally:
            self.compute.snapshots.begin_delete(group, name).result()

    def upload(self, group, name, data, os_type=None):
        """A new disk with these bytes; the footer is QEMU's."""
        properties = {"creationData": {"createOption": "Upload", "uploadSizeBytes": len(data) + 512}}
        if os_type:
            properties["osType"] = os_type
        body = {"location": azure.REGION, "sku": {"name": "Standard_LRS"}, "properties": properties}
        self.compute.disks.begin_create_or_update(group, name, body).result()
        blob = self.blob(self.open_disk(group, name))
        step = 4 * MIB
        for offset in range(0, len(data), step):
            piece = data[offset : offset + step]
            if any(piece):
                blob.upload_page(piece, offset=offset, length=len(piece))
        blob.upload_page(fixed_vhd_footer(len(data)), offset=len(data), length=512)
        self.compute.disks.begin_revoke_access(group, name).result()
        return self.compute.disks.get(group, name)

    def machine(self, group, name, os_disk, data_disks=()):
        subnet = self.network.network_interfaces.get("rg1", "web-01-nic").ip_configurations[0].subnet.id
        nic = self.network.network_interfaces.begin_create_or_update(
            group,
            f"{name}-nic",
            {
                "location": azure.REGION,
                "properties": {"ipConfigurations": [{"name": "ip", "properties": {"subnet": {"id": subnet}}}]},
            },
        ).result()
        body = {
            "location": azure.REGION,
            "properties": {
                "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
                "storageProfile": {
                    "osDisk": {"createOption": "Attach", "osType": "Linux", "managedDisk": {"id": os_disk.id}},
                    "dataDisks": [
                        {"lun": lun, "createOption": "Attach", "managedDisk": {"id": disk.id}} for lun, disk in data_disks
                    ],
                },
                "networkProfile": {"networkInterfaces": [{"id": nic.id}]},
            },
        }
        return self.compute.virtual_machines.begin_create_or_update(group, name, body).result()


def fixed_vhd_footer(size):
    """What QEMU writes behind a raw image of `size` bytes."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        raw, vhd = pathlib.Path(folder, "raw"), pathlib.Path(folder, "vhd")
        with open(raw, "wb") as file:
            file.truncate(size)
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size", raw, vhd], check=True
        )
        with open(vhd, "rb") as file:
            file.seek(size)
            return file.read()


def run(checks, emulator, azure_vm):
    os.environ["REQUESTS_CA_BUNDLE"] = emulator.ca
    sdk = Sdk(emulator)
    login(checks, emulator, sdk)
    reading(checks, sdk)
    snapshots(checks, emulator, sdk)
    building(checks, emulator, sdk)
    round_trip(checks, emulator, sdk, azure_vm)
    checks.check("nothing was asked that the emulator does not model", emulator.unmodelled, [])


def login(checks, emulator, sdk):
    checks.begin("Python SDK, login")
    scope = emulator.https + "/.default"
    checks.check("a token for the right secret", lambda: sdk.credential().get_token(scope).token.count("."), 2)
    checks.refused("a wrong secret", lambda: sdk.credential(secret="wrong").get_token(scope), "AADSTS7000215")
    checks.refused(
        "an unknown tenant", lambda: sdk.credential(tenant=str(uuid.uuid4())).get_token(scope), "Authentication failed"
    )


def reading(checks, sdk):
    checks.begin("Python SDK, reading")
    machines, compute = sdk.compute.virtual_machines, sdk.compute
    checks.check("VMs over three pages", lambda: [vm.name for vm in machines.list_all()], ["web-01", "web-02", "web-03"])
    checks.check("VMs of a group", lambda: [vm.name for vm in machines.list("rg1")], ["web-01", "web-02"])
    checks.check("a VM's data disk", lambda: machines.get("rg1", "web-01").storage_profile.data_disks[0].lun, 5)
    checks.check("a VM's zone and tags", lambda: (machines.get("rg1", "web-01").zones, dict(machines.get("rg1", "web-01").tags)), (["1"], {"env": "prod"}))
    checks.check(
        "power state",
        lambda: [s.code for s in machines.get("rg1", "web-01", expand="instanceView").instance_view.statuses][-1],
        "PowerState/running",
    )
    checks.check("size of a disk", lambda: compute.disks.get("rg1", "web-01-data").disk_size_bytes, 32 * MIB)
    checks.check("disks over pages", lambda: len(list(compute.disks.list())), 4)
    checks.check("NICs", lambda: [nic.name for nic in sdk.network.network_interfaces.list("rg1")], ["web-01-nic", "web-02-nic"])
    checks.refused("a VM that is not there", lambda: machines.get("rg1", "none"), "ResourceNotFound")


def snapshots(checks, emulator, sdk):
    checks.begin("Python SDK, snapshots")
    store = sdk.compute.snapshots
    before = emulator.read("web-01-data")
    checks.check("an incremental snapshot", lambda: sdk.snapshot("rg1", "s1", "web-01-data").incremental, True)
    emulator.guest_write("web-01-data", MIB, CONTENT)
    emulator.guest_discard("web-01-data", 0, "128KiB")
    after = emulator.read("web-01-data")
    checks.check("a second one of the same family", lambda: sdk.snapshot("rg1", "s2", "web-01-data").incremental_snapshot_family_id == store.get("rg1", "s1").incremental_snapshot_family_id, True)
    checks.check("both in the list", lambda: sorted(s.name for s in store.list_by_resource_group("rg1")), ["s1", "s2"])
    checks.check("tags", lambda: dict(store.begin_update("rg1", "s2", {"tags": {"a": "b"}}).result().tags), {"a": "b"})
    old = checks.check("access to the first", lambda: sdk.open_snapshot("rg1", "s1"))
    new = checks.check("access to the second", lambda: sdk.open_snapshot("rg1", "s2"))
    checks.check("its state", lambda: str(store.get("rg1", "s2").disk_state.value), "ActiveSAS")
    blob, base = sdk.blob(new), sdk.blob(old)
    checks.check("the size with the footer", lambda: blob.get_blob_properties().size, 32 * MIB + 512)
    checks.check("page ranges over pages", lambda: sum(1 for _ in blob.list_page_ranges(results_per_page=5)), 99)
    checks.check("the same in one list", lambda: len(blob.get_page_ranges()[0]) > 0, True)

    def difference():
        written, cleared = blob.get_page_range_diff_for_managed_disk(old)
        data = bytearray(before)
        for page in cleared:
            data[page["start"] : page["end"] + 1] = bytes(page["end"] + 1 - page["start"])
        for page in written:
            length = page["end"] + 1 - page["start"]
            data[page["start"] : page["end"] + 1] = blob.download_blob(offset=page["start"], length=length).readall()
        return bytes(data) == after

    checks.check("the difference, applied to the first, gives the second", difference, True)
    checks.check("a whole download of the first", lambda: base.download_blob(max_concurrency=4).readall()[:-512] == before, True)
    checks.refused("a range beyond the end", lambda: blob.download_blob(offset=40 * MIB, length=512).readall(), "InvalidRange")
    checks.refused("deletion under access", lambda: store.begin_delete("rg1", "s2").result(), "OperationNotAllowed")
    checks.check("access given back", lambda: (store.begin_revoke_access("rg1", "s1").result(), store.begin_revoke_access("rg1", "s2").result()), (None, None))
    checks.refused("reading after that", lambda: blob.download_blob(offset=0, length=512).readall(), "Auth")
    checks.check("deletion", lambda: [store.begin_delete("rg1", name).result() for name in ("s1", "s2")], [None, None])
    checks.refused("a deleted one", lambda: store.get("rg1", "s1"), "ResourceNotFound")


def building(checks, emulator, sdk):
    checks.begin("Python SDK, building")
    data = bytearray(24 * MIB)
    data[5 * MIB : 5 * MIB + len(CONTENT)] = CONTENT
    compute = sdk.compute
    disk = checks.check("an uploaded disk", lambda: sdk.upload("rg1", "up-os", bytes(data), "Linux"))
    checks.check("its bytes", lambda: emulator.read("up-os") == bytes(data), True)
    checks.check("a VM of it", lambda: sdk.machine("rg1", "built", disk).provisioning_state, "Succeeded")

    def attach():
        more = sdk.upload("rg1", "up-data", bytes(20 * MIB))
        vm = compute.virtual_machines.get("rg1", "built")
        vm.storage_profile.data_disks.append({"lun": 3, "createOption": "Attach", "managedDisk": {"id": more.id}})
        compute.virtual_machines.begin_create_or_update("rg1", "built", vm).result()
        return [disk.lun for disk in compute.virtual_machines.get("rg1", "built").storage_profile.data_disks]

    checks.check("a data disk attached to it", attach, [3])
    checks.refused("deletion of an attached disk", lambda: compute.disks.begin_delete("rg1", "up-os").result(), "attached")
    checks.check("deallocation", lambda: compute.virtual_machines.begin_deallocate("rg1", "built").result(), None)
    checks.check("deletion of the VM", lambda: compute.virtual_machines.begin_delete("rg1", "built").result(), None)
    checks.check("deletion of its NIC", lambda: sdk.network.network_interfaces.begin_delete("rg1", "built-nic").result(), None)
    checks.check("deletion of its disks", lambda: [compute.disks.begin_delete("rg1", name).result() for name in ("up-os", "up-data")], [None, None])


def round_trip(checks, emulator, sdk, azure_vm):
    checks.begin("Python SDK and azure-vm")
    from tempfile import TemporaryDirectory

    access = [
        "--tenant-id", azure.TENANT, "--subscription-id", azure.SUBSCRIPTION, "--application-id", azure.CLIENT,
        "--arm-endpoint", emulator.https, "--authority", emulator.https, "--ca-file", emulator.ca,
    ]
    environment = dict(os.environ, AZURE_VM_APPLICATION_SECRET=azure.SECRET)

    def ours(*arguments):
        done = subprocess.run([azure_vm, *arguments, *access], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"azure-vm {arguments[0]} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    with TemporaryDirectory() as folder:
        checks.check("azure-vm saves what the emulator's guests wrote", lambda: ours("backup", "--to", folder, "--vm", "web-01") and None)
        saved = {path.name.split("_", 1)[-1]: path for path in pathlib.Path(folder).rglob("*_*")}
        for file, disk in (("osdisk", "web-01-os"), ("0", "web-01-data")):
            checks.check(
                f"the SDK reads the same of {disk}",
                lambda file=file, disk=disk: saved[file].read_bytes() == sdk.image("rg1", disk), True,
            )
        checks.check("azure-vm restores it", lambda: ours("restore", "--from", folder, "--new-hostname", "back") and None)

        def restored():
            vm = sdk.compute.virtual_machines.get("rg1", "back")
            disks = [vm.storage_profile.os_disk, *vm.storage_profile.data_disks]
            same = [sdk.image("rg1", disk.name) == saved[file].read_bytes() for disk, file in zip(disks, ("osdisk", "0"))]
            return same, vm.storage_profile.data_disks[0].lun, vm.zones, dict(vm.tags)

        checks.check("the SDK finds disks, LUN, zone and tags as they were", restored, ([True, True], 5, ["1"], {"env": "prod"}))
        checks.check("the SDK deletes the copy", lambda: sdk.compute.virtual_machines.begin_delete("rg1", "back").result(), None)

    with TemporaryDirectory() as folder:
        data = os.urandom(3 * MIB) + bytes(17 * MIB) + os.urandom(MIB)
        checks.check("the SDK makes a VM", lambda: sdk.machine("rg1", "theirs", sdk.upload("rg1", "theirs-os", data, "Linux")).name, "theirs")
        checks.check("azure-vm saves it", lambda: ours("backup", "--to", folder, "--vm", "theirs") and None)
        checks.check("with the bytes that the SDK uploaded", lambda: next(pathlib.Path(folder).rglob("*_osdisk")).read_bytes() == data, True)
        checks.check("azure-vm restores it", lambda: ours("restore", "--from", folder, "--new-hostname", "theirs-back") and None)
        checks.check(
            "the SDK reads the same again",
            lambda: sdk.image("rg1", sdk.compute.virtual_machines.get("rg1", "theirs-back").storage_profile.os_disk.name) == data,
            True,
        )
    checks.check("no snapshot is left", lambda: [s.name for s in sdk.compute.snapshots.list()], [])
