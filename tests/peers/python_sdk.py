"""Azure's SDK for Python, unmodified, against the emulator; and against what our own programs saved and made."""

import contextlib
import os
import pathlib
import uuid
from datetime import datetime, timedelta, timezone
from tempfile import TemporaryDirectory

import emulator as azure
import formats
from emulator import MIB

CONTENT = b"\x07" * 8192


def clients(emulator):
    from azure.identity import ClientSecretCredential
    from azure.mgmt.compute import ComputeManagementClient
    from azure.mgmt.network import NetworkManagementClient
    from azure.mgmt.resource.resources import ResourceManagementClient

    def credential(tenant=azure.TENANT, secret=azure.SECRET, client=azure.CLIENT):
        return ClientSecretCredential(tenant, client, secret, authority=emulator.https, disable_instance_discovery=True)

    def client(of, who):
        return of(
            who, azure.SUBSCRIPTION, base_url=emulator.https, credential_scopes=[emulator.https + "/.default"], polling_interval=0.1
        )

    who = credential()
    compute, network, resource = (
        client(of, who) for of in (ComputeManagementClient, NetworkManagementClient, ResourceManagementClient)
    )
    return credential, compute, network, resource, client(ComputeManagementClient, credential(client=azure.READER))


class Sdk:
    """The few things that every part of the scenario does."""

    def __init__(self, emulator):
        from azure.storage.blob import BlobClient

        self.emulator = emulator
        self.blob = BlobClient.from_blob_url
        self.credential, self.compute, self.network, self.resource, self.reader = clients(emulator)

    def snapshot(self, group, name, disk, client=None):
        body = {
            "location": azure.REGION,
            "tags": {"made-by": "sdk"},
            "properties": {
                "incremental": True,
                "creationData": {"createOption": "Copy", "sourceResourceId": self.compute.disks.get(group, disk).id},
            },
        }
        return (client or self.compute).snapshots.begin_create_or_update(group, name, body).result()

    def open_snapshot(self, group, name):
        body = {"access": "Read", "durationInSeconds": 3600}
        return self.compute.snapshots.begin_grant_access(group, name, body).result().access_sas

    def open_disk(self, group, name):
        body = {"access": "Write", "durationInSeconds": 3600}
        return self.compute.disks.begin_grant_access(group, name, body).result().access_sas

    @contextlib.contextmanager
    def opened(self, group, disk):
        """The SAS of a snapshot of a disk, which is gone afterwards."""
        name = f"read-{uuid.uuid4().hex[:8]}"
        self.snapshot(group, name, disk)
        try:
            yield self.open_snapshot(group, name)
            self.compute.snapshots.begin_revoke_access(group, name).result()
        finally:
            self.compute.snapshots.begin_delete(group, name).result()

    def whole(self, sas):
        """All bytes of a blob. `download_blob` would do for small ones: of large page blobs it reads what stands on the
        first page of the list of their ranges."""
        blob = self.blob(sas)
        data = bytearray(blob.get_blob_properties().size)
        for page in blob.list_page_ranges():
            data[page.start : page.end + 1] = blob.download_blob(offset=page.start, length=page.end + 1 - page.start).readall()
        return bytes(data)

    def image(self, group, disk):
        """All bytes of a disk."""
        with self.opened(group, disk) as sas:
            return self.whole(sas)[:-512]

    def upload_disk(self, group, name, size, write, **properties):
        """A new disk, which `write` fills: `size` bytes, the footer included."""
        properties["creationData"] = {"createOption": "Upload", "uploadSizeBytes": size}
        body = {"location": azure.REGION, "sku": {"name": "Standard_LRS"}, "properties": properties}
        self.compute.disks.begin_create_or_update(group, name, body).result()
        self.last_upload = self.blob(self.open_disk(group, name))
        write(self.last_upload)
        self.compute.disks.begin_revoke_access(group, name).result()
        return self.compute.disks.get(group, name)

    def upload(self, group, name, data, **properties):
        """A new disk with these bytes; the footer is QEMU's."""

        def write(blob):
            formats.write_pages(blob, data)
            blob.upload_page(formats.fixed_vhd_footer(len(data)), offset=len(data), length=512)

        return self.upload_disk(group, name, len(data) + 512, write, **properties)

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


def run(checks, emulator, sdk, azure_vm):
    login(checks, emulator, sdk)
    reading(checks, sdk)
    snapshots(checks, emulator, sdk)
    building(checks, emulator, sdk)
    storage_account(checks, emulator, sdk)
    difference(checks, emulator, sdk, azure_vm)
    round_trip(checks, emulator, sdk, azure_vm)


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
    checks.check("resource groups over pages", lambda: [group.name for group in sdk.resource.resource_groups.list()], ["rg1", "rg2"])
    checks.check("a resource group", lambda: sdk.resource.resource_groups.get("RG1").location, azure.REGION)
    checks.refused("a resource group that is not there", lambda: sdk.resource.resource_groups.get("none"), "ResourceGroupNotFound")
    checks.refused("a VM that is not there", lambda: machines.get("rg1", "none"), "ResourceNotFound")


def snapshots(checks, emulator, sdk):
    checks.begin("Python SDK, snapshots")
    compute, store = sdk.compute, sdk.compute.snapshots
    before = emulator.read("web-01-data")
    checks.check("an incremental snapshot", lambda: sdk.snapshot("rg1", "s1", "web-01-data").incremental, True)
    emulator.guest_write("web-01-data", MIB, CONTENT)
    emulator.guest_discard("web-01-data", 0, "128KiB")
    after = emulator.read("web-01-data")
    checks.check("a second one of the same family", lambda: sdk.snapshot("rg1", "s2", "web-01-data").incremental_snapshot_family_id == store.get("rg1", "s1").incremental_snapshot_family_id, True)
    checks.check("both in the list", lambda: sorted(s.name for s in store.list_by_resource_group("rg1")), ["s1", "s2"])
    checks.refused("one of a disk that is not there", lambda: store.begin_create_or_update("rg1", "s3", {
        "location": azure.REGION,
        "properties": {"incremental": True, "creationData": {
            "createOption": "Copy", "sourceResourceId": compute.disks.get("rg1", "web-01-data").id + "-gone"}},
    }).result(), "NotFound")
    checks.refused("one by a principal that may not", lambda: sdk.snapshot("rg1", "s3", "web-01-data", sdk.reader), "AuthorizationFailed")
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
    disk = checks.check("an uploaded disk", lambda: sdk.upload("rg1", "up-os", bytes(data), osType="Linux"))
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
    checks.refused("a VM with a disk that another one has", lambda: sdk.machine("rg1", "built-2", compute.disks.get("rg1", "up-os")), "attached")
    checks.check("deletion of what is left of that", lambda: sdk.network.network_interfaces.begin_delete("rg1", "built-2-nic").result())
    checks.refused("pages without access", lambda: sdk.last_upload.upload_page(CONTENT, offset=0, length=len(CONTENT)), "Auth")
    checks.refused("an upload without a footer", lambda: sdk.upload_disk("rg1", "no-footer", 20 * MIB + 512, lambda blob: None), "footer")
    checks.check("deletion of it", lambda: compute.disks.begin_delete("rg1", "no-footer").result())
    checks.check("deallocation", lambda: compute.virtual_machines.begin_deallocate("rg1", "built").result(), None)
    checks.check("deletion of the VM", lambda: compute.virtual_machines.begin_delete("rg1", "built").result(), None)
    checks.check("deletion of its NIC", lambda: sdk.network.network_interfaces.begin_delete("rg1", "built-nic").result(), None)
    checks.check("deletion of its disks", lambda: [compute.disks.begin_delete("rg1", name).result() for name in ("up-os", "up-data")], [None, None])


def storage_account(checks, emulator, sdk):
    """An ordinary storage account of the emulator, by its key and by a signature, with a copy of a snapshot into it."""
    from azure.storage.blob import BlobServiceClient, ResourceTypes, generate_account_sas

    checks.begin("Python SDK, storage account")
    endpoint = f"{emulator.https}/{azure.ACCOUNT}"
    connection = f"AccountName={azure.ACCOUNT};AccountKey={azure.ACCOUNT_KEY};BlobEndpoint={endpoint}"
    account = BlobServiceClient.from_connection_string(connection)
    box = account.get_container_client("box")
    checks.refused("a container that is not there", lambda: box.get_container_properties(), "ContainerNotFound")
    checks.check("a container", lambda: (box.create_container() is not None, box.exists()), (True, True))
    metadata = {"a_b": "1", "a1": "two words", "ab": "3"}
    blob = box.get_blob_client("a/odd name+é%;b")
    checks.check("a page blob with metadata", lambda: blob.create_page_blob(MIB, metadata=metadata) is not None, True)
    checks.check("pages", lambda: blob.upload_page(CONTENT, offset=4096, length=len(CONTENT)) is not None, True)
    checks.check("cleared pages", lambda: blob.clear_page(8192, 4096) is not None, True)
    checks.check("its bytes", lambda: blob.download_blob().readall() == (bytes(4096) + CONTENT[:4096]).ljust(MIB, b"\0"), True)
    checks.check("its ranges", lambda: [(page.start, page.end) for page in blob.list_page_ranges()], [(4096, 8191)])
    checks.check("the list, with metadata", lambda: [(found.name, found.metadata) for found in box.list_blobs(include=["metadata"])], [(blob.blob_name, metadata)])

    def copied():
        target = box.get_blob_client("copy")
        with sdk.opened("rg1", "web-01-data") as sas:
            target.start_copy_from_url(sas)
            while target.get_blob_properties().copy.status == "pending":
                pass
        return target.get_blob_properties().copy.status, target.download_blob().readall()[:-512] == emulator.read("web-01-data")

    checks.check("a copy of a snapshot by the service", copied, ("success", True))
    query = generate_account_sas(
        azure.ACCOUNT, azure.ACCOUNT_KEY, ResourceTypes(container=True, object=True), "rl", datetime.now(timezone.utc) + timedelta(hours=1)
    )
    guest = BlobServiceClient(endpoint, credential=query).get_container_client("box")
    checks.check("reading by a signature", lambda: guest.get_blob_client("copy").download_blob(offset=0, length=512).readall() != b"", True)
    checks.refused("writing by one that only reads", lambda: guest.get_blob_client("new").create_page_blob(512), "AuthorizationPermissionMismatch")
    wrong = BlobServiceClient(endpoint, credential={"account_name": azure.ACCOUNT, "account_key": "ZXhhbXBsZQ=="})
    checks.refused("a wrong key", lambda: wrong.get_container_client("box").get_container_properties(), "Authenticat")
    checks.check("deletion", lambda: [box.delete_blob(found) for found in ("copy", blob.blob_name)] + [box.delete_container()])


def difference(checks, emulator, sdk, azure_vm):
    """`azure-vm pull --base`: the SDK makes both snapshots, and knows what changed between them."""
    checks.begin("Python SDK and azure-vm pull --base")
    with TemporaryDirectory() as folder:
        older, newer = pathlib.Path(folder, "older"), pathlib.Path(folder, "newer")
        names = ("base", "target")

        def snapshot(name):
            sdk.snapshot("rg1", name, "web-01-os")
            return sdk.open_snapshot("rg1", name), emulator.read("web-01-os")

        base, before = checks.check("the older snapshot", lambda: snapshot("base"))
        checks.check("azure-vm pull reads all of it", lambda: (azure_vm.pull(base, older)["sizeBytes"], older.read_bytes() == before), (64 * MIB, True))
        # No more than stands on one page: the SDK reads one.
        for number in range(6):
            emulator.guest_write("web-01-os", (number * 9 + 8) * MIB - 4096, CONTENT)
        emulator.guest_discard("web-01-os", 2 * MIB, "4MiB")
        target, after = checks.check("the newer one", lambda: snapshot("target"))
        written = []

        def changes():
            pages, cleared = sdk.blob(target).get_page_range_diff_for_managed_disk(base)
            written.append(sum(page["end"] + 1 - page["start"] for page in pages))
            return len(pages), [(page["start"], page["end"] + 1) for page in cleared]

        checks.check("the SDK sees what was written and what was cleared", changes, (6, [(2 * MIB, 6 * MIB)]))
        pulled = checks.check("azure-vm pull reads the changes", lambda: azure_vm.pull(target, newer, base, older))
        checks.check("as many bytes as the SDK lists, and the last page of the disk", lambda: pulled["writtenBytes"], written[0] + 512)
        checks.check("the result is what the guest's disk was", lambda: newer.read_bytes() == after, True)
        checks.check("the SDK reads the same of the newer snapshot", lambda: sdk.whole(target)[:-512] == newer.read_bytes(), True)
        checks.check("the older file is as it was", lambda: older.read_bytes() == before, True)
        newer.unlink(missing_ok=True)
        checks.refused("a base that is newer", lambda: azure_vm.pull(base, newer, target, older), "PreviousSnapshotCannotBeNewer")
        with sdk.opened("rg1", "web-01-data") as other:
            checks.refused("a base of another disk", lambda: azure_vm.pull(target, newer, other, older), "changed page ranges")
        checks.check("neither left a file", newer.exists, False)
        checks.check("deletion", lambda: [
            (sdk.compute.snapshots.begin_revoke_access("rg1", name).result(), sdk.compute.snapshots.begin_delete("rg1", name).result()) for name in names
        ])


def round_trip(checks, emulator, sdk, azure_vm):
    checks.begin("Python SDK and azure-vm")
    disks = {"osdisk": "web-01-os", "0": "web-01-data"}
    with TemporaryDirectory() as folder:
        files = checks.check("azure-vm saves what the emulator's guests wrote", lambda: azure_vm.backup(folder, "web-01"))
        for file, disk in disks.items():
            checks.check(f"the SDK reads the same of {disk}", lambda file=file, disk=disk: files[file].read_bytes() == sdk.image("rg1", disk), True)
        formats.guest(checks, emulator, files, disks)
        checks.begin("Python SDK and azure-vm")
        checks.check("azure-vm restores it", lambda: azure_vm("restore", "--from", folder, "--new-hostname", "back")["name"], "back")

        def restored():
            vm = sdk.compute.virtual_machines.get("rg1", "back")
            found = [vm.storage_profile.os_disk, *vm.storage_profile.data_disks]
            same = [sdk.image("rg1", disk.name) == files[file].read_bytes() for disk, file in zip(found, disks, strict=True)]
            return same, vm.storage_profile.data_disks[0].lun, vm.zones, dict(vm.tags)

        checks.check("the SDK finds disks, LUN, zone and tags as they were", restored, ([True, True], 5, ["1"], {"env": "prod"}))
        checks.check("the SDK deletes the copy", lambda: sdk.compute.virtual_machines.begin_delete("rg1", "back").result())

    with TemporaryDirectory() as folder:
        data = os.urandom(3 * MIB) + bytes(17 * MIB) + os.urandom(MIB)
        checks.check("the SDK makes a VM", lambda: sdk.machine("rg1", "theirs", sdk.upload("rg1", "theirs-os", data, osType="Linux")).name, "theirs")
        files = checks.check("azure-vm saves it", lambda: azure_vm.backup(folder, "theirs"))
        checks.check("with the bytes that the SDK uploaded", lambda: files["osdisk"].read_bytes() == data, True)
        checks.check("azure-vm restores it", lambda: azure_vm("restore", "--from", folder, "--new-hostname", "theirs-back")["name"], "theirs-back")
        checks.check(
            "the SDK reads the same again",
            lambda: sdk.image("rg1", sdk.compute.virtual_machines.get("rg1", "theirs-back").storage_profile.os_disk.name) == data,
            True,
        )

    with TemporaryDirectory() as folder:
        key = pathlib.Path(folder, "key")
        key.touch(0o600)
        key.write_text(f"AccountName={azure.ACCOUNT};AccountKey={azure.ACCOUNT_KEY};BlobEndpoint={emulator.https}/{azure.ACCOUNT}")
        through = ["-p", "transfer=blob", "-p", f"connection_key_file={key}"]
        files = checks.check("azure-vm saves it through a storage account", lambda: azure_vm.backup(folder, "theirs", *through))
        checks.check("with the same bytes", lambda: files["osdisk"].read_bytes() == data, True)
    checks.check("no snapshot is left", lambda: [s.name for s in sdk.compute.snapshots.list()], [])
