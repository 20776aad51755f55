"""Formats by other hands: VHD and raw by `qemu-img`, documents by a validator of JSON Schema, Java's regular expressions by a JDK."""

import copy
import json
import pathlib
import re
import subprocess
import tempfile

from emulator import MIB


def qemu_img(*arguments):
    return subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)


def convert(source, form, target, to, options=None):
    more = ["-o", options] if options else []
    done = qemu_img("convert", "-f", form, "-O", to, *more, source, target)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return target


def fixed_vhd(raw, vhd, options="subformat=fixed,force_size"):
    return convert(raw, "raw", vhd, "vpc", options)


def fixed_vhd_footer(size):
    """What QEMU writes behind a raw image of `size` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        raw, vhd = pathlib.Path(folder, "raw"), pathlib.Path(folder, "vhd")
        with open(raw, "wb") as file:
            file.truncate(size)
        with open(fixed_vhd(raw, vhd), "rb") as file:
            file.seek(size)
            return file.read()


def virtual_size(image, form="vpc"):
    done = qemu_img("info", "-f", form, "--output=json", image)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)["virtual-size"]


def same(one, form, other, other_form):
    """By `qemu-img compare`, which takes a difference in size for equal if it is all zeros."""
    done = qemu_img("compare", "-f", form, "-F", other_form, one, other)
    if done.returncode > 1:
        raise RuntimeError(done.stderr)
    return done.returncode == 0 and virtual_size(one, form) == virtual_size(other, other_form)


def write_pages(blob, data):
    """Uploads what is not zero."""
    for offset in range(0, len(data), 4 * MIB):
        piece = data[offset : offset + 4 * MIB]
        if any(piece):
            blob.upload_page(piece, offset=offset, length=len(piece))


def vhd(checks, sdk, azure_vm, contents):
    """Fixed VHDs of qemu-img, as upload disks, and back again as raw files."""
    checks.begin("qemu-img and the emulator")

    def upload(name, file):
        """All of a VHD file, as it is."""
        data = file.read_bytes()
        sdk.upload_disk("rg1", name, len(data), lambda blob: write_pages(blob, data))

    with tempfile.TemporaryDirectory() as folder:
        raw, image, pulled = (pathlib.Path(folder, name) for name in ("raw", "vhd", "pulled"))
        for name, data in contents.items():
            raw.write_bytes(data)

            def there_and_back(name=name):
                pulled.unlink(missing_ok=True)
                upload(f"qemu-{name}", fixed_vhd(raw, image))
                with sdk.opened("rg1", f"qemu-{name}") as sas:
                    azure_vm.pull(sas, pulled)
                return same(pulled, "raw", image, "vpc"), same(pulled, "raw", raw, "raw")

            checks.check(f"a fixed VHD, uploaded, and pulled again: {name}", there_and_back, (True, True))

            def pushed(name=name, size=len(data)):
                sdk.upload_disk("rg1", f"push-{name}", size + 512, lambda blob: azure_vm.push(blob.url, raw))
                with sdk.opened("rg1", f"push-{name}") as sas:
                    image.write_bytes(sdk.whole(sas))
                return virtual_size(image) == size, same(raw, "raw", image, "vpc")

            checks.check(f"azure-vm push, downloaded as a VHD: {name}", pushed, (True, True))
        checks.refused("a dynamic VHD as an upload", lambda: upload("dynamic", convert_padded(raw, image)), "InvalidParameter")
        rounded = fixed_vhd(raw, image, "subformat=fixed")
        checks.refused("a VHD whose size is rounded to its geometry", lambda: upload("rounded", rounded), "uploadSizeBytes")
        with open(raw, "r+b") as file:
            file.seek(MIB)
            file.write(b"\xa5")
        checks.check("qemu-img sees a single byte that differs", lambda: same(pulled, "raw", raw, "raw"), False)


def convert_padded(raw, target):
    """A dynamic VHD, with the zeros before its footer that make it a whole number of MiB and a footer."""
    convert(raw, "raw", target, "vpc", "subformat=dynamic,force_size")
    data = target.read_bytes()
    size = max(-(-(len(data) - 512) // MIB), 20) * MIB
    target.write_bytes(data[:-512].ljust(size, b"\0") + data[-512:])
    return target


def guest(checks, emulator, files, disks):
    """Raw images that azure-vm saved, and what the guest's disks hold."""
    checks.begin("qemu-img and azure-vm")
    with tempfile.TemporaryDirectory() as folder:
        disk = pathlib.Path(folder, "disk")
        for file, name in disks.items():
            def compare(file=file, name=name):
                disk.write_bytes(emulator.read(name))
                return same(files[file], "raw", disk, "raw")

            checks.check(f"{file} is {name}, of the same size", compare, True)


def saved_documents(checks, root, name, documents):
    """Checks those that were saved on the way; the schema, the last of them, and what tells the errors of another."""
    from jsonschema import Draft202012Validator

    checks.begin(f"JSON Schema of {name}")
    schema = json.loads((root / name).read_text())
    checks.check("it is a schema", lambda: Draft202012Validator.check_schema(schema))
    validator = Draft202012Validator(schema)

    def errors(document):
        return [error.message for error in validator.iter_errors(document)]

    saved = [json.loads(text) for text in documents]
    checks.check("there are documents", lambda: len(saved) > 2, True)
    for number, document in enumerate(saved, 1):
        checks.check(f"document {number} of {len(saved)}, of {document['vmUuid']}", lambda document=document: errors(document), [])
    return schema, saved[-1], errors


def digests(checks, root, documents):
    """The digests of the same runs."""
    schema, document, errors = saved_documents(checks, root, "docs/digests.schema.json", documents)
    for change, broken in without_each(schema, document):
        checks.check(f"refused: {change}", lambda broken=broken: bool(errors(broken)), True)
    wrong = {
        "format": 2, "epoch": -1, "vmUuid": "web", "algorithm": "md5", "confSha256": "0", "sha256": 64 * "g", "images": {},
    }
    for name, value in wrong.items():
        broken = {**document, name: value}
        checks.check(f"refused: {name} of {json.dumps(value)}", lambda broken=broken: bool(errors(broken)), True)
    for value in ([f"0:{31 * '0'}"], [0], {}):
        broken = copy.deepcopy(document)
        broken["images"][0]["segments"] = value
        checks.check(f"refused: segments of {json.dumps(value)}", lambda broken=broken: bool(errors(broken)), True)


def configuration(checks, root, documents, delta):
    """Documents that were saved on the way, and what is left of them after a part was broken."""
    schema, _, errors = saved_documents(checks, root, "docs/conf.schema.json", documents)
    checks.check("a document with changes", lambda: errors(delta), [])
    checks.check("members that a reader does not know are allowed", lambda: errors({**delta, "new": {"a": 1}}), [])

    for change, broken in breaks(schema, delta):
        checks.check(f"refused: {change}", lambda broken=broken: bool(errors(broken)), True)


def without_each(schema, document):
    """Each required member left out, one at a time."""
    for name in schema["required"]:
        yield f"without {name}", {key: value for key, value in document.items() if key != name}
    for name in schema["$defs"]["image"]["required"]:
        broken = copy.deepcopy(document)
        del broken["images"][0][name]
        yield f"an image without {name}", broken


def breaks(schema, document):
    """Each required member left out, and values that are wrong, one at a time."""
    yield from without_each(schema, document)
    wrong = {
        "format": 2, "creator": "", "level": "VirtualFull", "epoch": -1, "vmUuid": "98F6AA47-7EF0-4A36-90BC-D8957C9F0033",
        "vmName": 7, "virtualMachine": "web", "networkInterfaces": {}, "images": None,
    }
    for name, value in wrong.items():
        yield f"{name} of {json.dumps(value)}", {**document, name: value}
    wrong = {
        "file": "../1_osdisk", "slot": {"data": -1}, "diskUniqueId": 1, "sizeBytes": "1", "sectorSize": -1, "dataBytes": -1,
        "content": "half", "snapshotTime": 0, "disk": [],
    }
    for name, value in wrong.items():
        broken = copy.deepcopy(document)
        broken["images"][0][name] = value
        yield f"an image with {name} of {json.dumps(value)}", broken
    for name in ("baseEpoch", "baseJob", "cleared"):
        broken = copy.deepcopy(document)
        del broken["images"][1]["content"]["delta"][name]
        yield f"changes without {name}", broken


def java(checks, root):
    """Patterns and names are compared with a JDK by a test of the crate itself."""
    checks.begin("Java (cargo test --test java_regex)")
    done = subprocess.run(
        ["cargo", "test", "--quiet", "--locked", "-p", "azure-vm-fd", "--test", "java_regex", "--", "--format=pretty", "--nocapture", "--test-threads=1"],
        cwd=root, capture_output=True, text=True, check=False,
    )
    output = done.stdout + done.stderr
    print(*[f"      {line}" for line in re.findall(r"Java [0-9].*", output)], sep="\n", flush=True)
    checks.check("verdicts are those of java.util.regex", lambda: (done.returncode, "skipped" in output), (0, False))
