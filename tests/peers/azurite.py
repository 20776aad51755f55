"""Our blob client against Azurite, the storage emulator of Azure's makers; the Python SDK looks at the same blobs."""

import base64
import datetime
import json
import os
import pathlib
import queue
import random
import subprocess
import tempfile
import threading

import formats
from emulator import MIB
from ours import Ended

ACCOUNT = "devstoreaccount1"
# Published in the documentation of Azurite.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# The newest that Azurite knows; the SDK's own default is beyond it.
API_VERSION = "2025-11-05"


class Azurite:
    """A running Azurite, on a loopback address of its own: `UseDevelopmentStorage=true` means port 10000."""

    def __init__(self, folder):
        self.folder = tempfile.TemporaryDirectory(prefix="azurite-")
        modules = pathlib.Path(folder).resolve() / "node_modules"
        self.version = json.loads((modules / "azurite/package.json").read_text())["version"]
        parts = random.SystemRandom()
        self.host = f"127.{parts.randrange(1, 255)}.{parts.randrange(255)}.{parts.randrange(1, 255)}"
        self.process = subprocess.Popen(
            [modules / ".bin/azurite-blob", "--blobHost", self.host, "--blobPort", "10000", "--inMemoryPersistence",
             "--extentMemoryLimit", "512", "--disableTelemetry"],
            cwd=self.folder.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        self.endpoint = f"http://{self.host}:10000/{ACCOUNT}"
        lines = queue.Queue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        try:
            output = ""
            while "successfully listens" not in output:
                line = lines.get(timeout=60)
                output += line
                if not line:
                    raise RuntimeError(f"Azurite ended: {output}")
        except BaseException:
            self.__exit__()
            raise

    def _read(self, lines):
        for line in self.process.stdout:
            lines.put(line)
        lines.put("")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def connection(self, **parts):
        parts = {"AccountName": ACCOUNT, "BlobEndpoint": self.endpoint, **parts}
        return ";".join(f"{name}={value}" for name, value in parts.items())


def run(checks, azurite, azure_vm, peer, contents):
    from azure.storage.blob import BlobServiceClient

    sdk = BlobServiceClient(azurite.endpoint, credential={"account_name": ACCOUNT, "account_key": KEY}, api_version=API_VERSION)
    sdk.create_container("peer")
    checks.begin(f"Azurite {azurite.version}")
    login(checks, azurite, azure_vm)
    images(checks, azurite, azure_vm, sdk, contents)
    checks.begin(f"Azurite {azurite.version}, by Shared Key")
    blobs(checks, azurite, peer, sdk, azurite.connection(AccountKey=KEY), "by-key")
    checks.begin(f"Azurite {azurite.version}, by account SAS")
    blobs(checks, azurite, peer, sdk, azurite.connection(SharedAccessSignature=account_sas("rwdlac")), "by-sas")
    checks.begin(f"Azurite {azurite.version}")
    gaps(checks, azurite, azure_vm, peer, sdk)


def expiry(minutes=60):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)


def account_sas(permission):
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    return generate_account_sas(
        ACCOUNT, KEY, ResourceTypes(container=True, object=True), AccountSasPermissions.from_string(permission), expiry(),
    )


def sas(blob, permission="rw", minutes=60, signed=None):
    """The URL of a blob with a service SAS, of another blob if `signed` says so."""
    from azure.storage.blob import generate_blob_sas

    query = generate_blob_sas(
        ACCOUNT, blob.container_name, signed or blob.blob_name, account_key=KEY, permission=permission, expiry=expiry(minutes),
    )
    return f"{blob.url}?{query}"


def login(checks, azurite, azure_vm):
    """`azure-vm check` with transfer=blob makes, reads and deletes a blob."""

    def verdict(connection):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "key")
            file.touch(0o600)
            file.write_text(connection)
            try:
                found = azure_vm("check", "-p", "transfer=blob", "-p", f"connection_key_file={file}")
            except Ended as error:
                found = error.report
            check = next(check for check in found["checks"] if check["name"] == "storage account")
            return check["result"] if check["result"] == "ok" else check["detail"]

    proxy = f"http://{azurite.host}"
    for name, connection in {
        "a key": azurite.connection(AccountKey=KEY),
        "the development account": f"UseDevelopmentStorage=true;DevelopmentStorageProxyUri={proxy}",
        "an account SAS": azurite.connection(SharedAccessSignature=account_sas("rwdlac")),
        "an account SAS with its question mark": azurite.connection(SharedAccessSignature="?" + account_sas("rwdlac")),
    }.items():
        checks.check(f"azure-vm check opens the account by {name}", lambda connection=connection: verdict(connection), "ok")
    for name, connection, word in (
        ("a wrong key", azurite.connection(AccountKey="ZXhhbXBsZQ=="), "403"),
        ("an account SAS that only reads", azurite.connection(SharedAccessSignature=account_sas("rl")), "403"),
    ):
        checks.check(f"azure-vm check reports {name}", lambda connection=connection, word=word: word in verdict(connection), True)


def images(checks, azurite, azure_vm, sdk, contents):
    """Whole images by SAS: what the SDK wrote, `azure-vm pull` reads, and what `azure-vm push` wrote, the SDK."""

    def blob(name, size):
        client = sdk.get_blob_client("peer", name)
        client.create_page_blob(size)
        return client

    with tempfile.TemporaryDirectory() as folder:
        raw, pulled = pathlib.Path(folder, "raw"), pathlib.Path(folder, "pulled")
        for name, data in contents.items():
            raw.write_bytes(data)
            footer = formats.fixed_vhd_footer(len(data))

            def written(name=name, data=data, footer=footer):
                client = blob(f"sdk-{name}", len(data) + 512)
                formats.write_pages(client, data)
                client.upload_page(footer, offset=len(data), length=512)
                pulled.unlink(missing_ok=True)
                azure_vm.pull(sas(client, "r"), pulled)
                return pulled.read_bytes() == data

            checks.check(f"azure-vm pull reads what the SDK wrote: {name}", written, True)

            def pushed(name=name, data=data):
                client = blob(f"ours-{name}", len(data) + 512)
                azure_vm.push(sas(client), raw)
                whole = client.download_blob().readall()
                vhd = pathlib.Path(folder, "vhd")
                vhd.write_bytes(whole)
                return whole[:-512] == data, formats.virtual_size(vhd) == len(data), formats.same(raw, "raw", vhd, "vpc")

            checks.check(f"the SDK and qemu-img read what azure-vm push wrote: {name}", pushed, (True, True, True))

        client = sdk.get_blob_client("peer", "sdk-" + next(iter(contents)))
        pulled.unlink(missing_ok=True)
        checks.refused("azure-vm pull by an expired SAS", lambda: azure_vm.pull(sas(client, "r", -5), pulled), "403")
        checks.refused("azure-vm pull by the SAS of another blob", lambda: azure_vm.pull(sas(client, "r", signed="other"), pulled), "403")
        checks.refused("azure-vm pull of a blob that is not there", lambda: azure_vm.pull(sas(sdk.get_blob_client("peer", "none"), "r"), pulled), "404")
        checks.refused("azure-vm pull of a blob without a footer", lambda: azure_vm.pull(sas(blob("empty", MIB + 512), "r"), pulled), "footer")
        checks.check("none of these left a file", pulled.exists, False)
        checks.refused("azure-vm push by a SAS that only reads", lambda: azure_vm.push(sas(blob("read-only", raw.stat().st_size + 512), "r"), raw), "403")
        checks.refused("azure-vm push over what was written before", lambda: azure_vm.push(sas(client), raw), "written to before")


def blobs(checks, azurite, peer, sdk, connection, container):
    """What backups through a storage account do there, step by step."""

    def ours(*steps):
        return peer("account", connection=connection, container=container, steps=list(steps))

    def step(do, **more):
        answer = ours({"do": do, **more})[0]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{answer['status']} {answer['code']}: {answer['error']}")
        return answer

    data = os.urandom(64 * 1024)
    text = base64.b64encode(data).decode()
    client = sdk.get_container_client(container)
    checks.check("a container is made once", lambda: [ours({"do": "ensure"}, {"do": "ensure"}), client.exists()], [[None, None], True])
    name = "a/odd name+é%;b"
    checks.check("a page blob", lambda: (step("create", blob=name, length=8 * MIB), step("length", blob=name)), (None, 8 * MIB))
    checks.check("the SDK finds it by its name", lambda: [blob.name for blob in client.list_blobs()], [name])
    checks.check("pages", lambda: (step("write", blob=name, offset=MIB, base64=text), step("write", blob=name, offset=4 * MIB, base64=text)), (None, None))
    blob = client.get_blob_client(name)
    checks.check(
        "the SDK reads them",
        lambda: blob.download_blob().readall() == bytes(MIB) + data + bytes(3 * MIB - len(data)) + data + bytes(4 * MIB - len(data)), True,
    )
    checks.check("their ranges", lambda: step("ranges", blob=name), [[MIB, MIB + len(data), False], [4 * MIB, 4 * MIB + len(data), False]])
    checks.check("as many ranges as the SDK wrote, joined where they touch", lambda: many(blob, 500) and len(step("ranges", blob=name)), 502)
    checks.check("a part of them", lambda: base64.b64decode(step("read", blob=name, start=MIB + 512, end=MIB + 2048)) == data[512:2048], True)
    checks.refused("reading beyond the end", lambda: step("read", blob=name, start=9 * MIB, end=9 * MIB + 512), "416")
    checks.refused("reading at the end, where Azurite answers 206 and nothing", lambda: step("read", blob=name, start=8 * MIB, end=8 * MIB + 512), "the answer holds")
    checks.refused("half a page is not sent", lambda: step("write", blob=name, offset=256, base64=text), "whole pages")
    checks.refused("pages beyond the end", lambda: step("write", blob=name, offset=8 * MIB, base64=text), "416")
    checks.refused("a blob that is not there", lambda: step("length", blob="none"), "404")

    metadata = {"a_b": "1", "a1": "two words", "ab": 'x:y="z"', "bacula_azure_vm_job": "j.2026-11-23_01.05.00_03"}
    source = sas(blob, "r")
    target = client.get_blob_client("copy")
    checks.check("a copy by the service", lambda: step("copy", blob="copy", source=source, metadata=list(metadata.items()))["status"], "success")
    checks.check("its state", lambda: step("copyState", blob="copy")["copied"], 8 * MIB)
    checks.check("the SDK reads the same of it", lambda: target.download_blob().readall() == blob.download_blob().readall(), True)
    checks.check("and its metadata", lambda: dict(target.get_blob_properties().metadata), metadata)
    checks.check("the list by a prefix shows them too", lambda: [(found, dict(values)) for found, values in step("list", prefix="co")], [("copy", metadata)])
    checks.refused("a copy of what is not there", lambda: step("copy", blob="copy2", source=sas(client.get_blob_client("none"), "r"), metadata=[]), "404")
    checks.check("deletion, also of what is gone", lambda: ours(*[{"do": "discard", "blob": found} for found in ("copy", "copy", name)]), [None, None, None])
    checks.check("the SDK finds nothing", lambda: [blob.name for blob in client.list_blobs()], [])


def many(blob, count):
    """Single pages with holes between them, in the second half of the blob; the first two touch."""
    for number in range(count):
        blob.upload_page(b"\x01" * 1024, offset=5 * MIB + number * 2048, length=1024)
    blob.upload_page(b"\x02" * 512, offset=5 * MIB + 1024, length=512)
    return True


def gaps(checks, azurite, azure_vm, peer, sdk):
    blob = sdk.get_blob_client("peer", "gaps")
    blob.create_page_blob(MIB)
    blob.upload_page(b"\x01" * 512, offset=0, length=512)
    blob.upload_page(b"\x01" * 512, offset=4096, length=512)
    base = blob.create_snapshot()
    blob.clear_page(0, 512)
    blob.upload_page(b"\x02" * 512, offset=8192, length=512)
    older = sas(blob, "r") + "&snapshot=" + base["snapshot"]

    def difference():
        step = {"do": "difference", "blob": sas(blob, "r"), "base": older}
        return peer("account", connection=azurite.connection(AccountKey=KEY), container="peer", steps=[step])[0]

    checks.gap(
        "changed ranges (azure-vm pull --base)", difference, [[4096, 4608, False], [8192, 8704, False]],
        "Azurite ignores x-ms-previous-snapshot-url and lists all ranges, and no cleared one",
    )
    checks.gap(
        "page lists over pages", lambda: len(list(blob.list_page_ranges(results_per_page=1).by_page())), 1,
        "Azurite ignores maxresults and marker, and lists everything at once",
    )
    checks.gap(
        "Put Page From URL", lambda: blob.upload_pages_from_url(sas(blob, "r"), 0, 512, 4096), "not implemented",
        "Azurite answers 501 (we do not use it)",
    )
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "key")
        file.touch(0o600)
        file.write_text(azurite.connection(AccountKey=KEY))
        checks.gap(
            "azure-vm backup with transfer=blob",
            lambda: azure_vm("backup", "--to", folder, "--vm", "web-01", "-p", "transfer=blob", "-p", f"connection_key_file={file}"),
            "CannotVerifyCopySource", "Azurite copies from its own accounts only (done with the emulator's account instead)",
        )
