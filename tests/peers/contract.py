"""Compares arm-specs with what Microsoft generated from the same API versions: the Python SDK.

What a document claims must be what the SDK says: of an operation its path, version, parameters, body, answers and accepted
statuses; of a model its members, their types, and which are read-only or required; of an enumeration its values. What a
document does not mention is not asked for, but for parameters that a request must have.
"""

import functools
import json

from sdk_source import Sdk

# Where the SDK keeps what is made of a document. `{}` stands for the API version.
PACKAGES = {
    "authorization.json": "mgmt/authorization/v{}",
    "blob.json": "storage/blob/_generated",
    "compute.json": "mgmt/compute/v{}",
    "disks.json": "mgmt/compute/v{}",
    "network.json": "mgmt/network",
    "resources.json": "mgmt/resource/resources/v{}",
    "subscriptions.json": "mgmt/resource/subscriptions/v{}",
}

SCALARS = {"str": "string", "int": "integer", "long": "integer", "bool": "boolean", "float": "number", "iso-8601": "string"}

# Headers that HTTP itself asks for: they follow from the body, and src/azure/call.rs sets them.
OF_HTTP = {"Accept", "Content-Length", "Content-Type"}

# Parameters whose value is the version of the document.
VERSIONS = {"api-version", "x-ms-version"}


# Models that the SDK names otherwise: it tells the purchase plans of disks and VMs apart, and names what has no name.
NAMED = {"PurchasePlan": "DiskPurchasePlan", "UserAssignedIdentity": "UserAssignedIdentitiesValue"}

ALWAYS_A_RANGE = "no more than a range is ever read or written, so the function asks for one"
ANSWER = "an answer only; the flag serves what is sent back"
LATER = "answered by the service; a new NIC must not carry it"
REFERENCE = "referred to by its id alone"
REVOKED = "204 is what Azure answers where nothing was open"
SET_BY_SERVICE = "the service sets it; a request must not carry it"

# Differences that are meant, by document and by operation or model. One that no longer shows is reported too.
EXPLAINED = {
    ("blob.json", "Container_ListBlobFlatSegment", "query parameter include: required is True, False in the SDK"): "metadata is always asked for",
    ("blob.json", "Container_ListBlobFlatSegment", "query parameter include: string, [str] in the SDK"): "a list of one, without its comma",
    ("blob.json", "Blob_Download", "statuses: [206], [200, 206] in the SDK"): "200 answers a request without a range",
    ("blob.json", "Blob_Download", "header parameter x-ms-range: required is True, False in the SDK"): ALWAYS_A_RANGE,
    ("blob.json", "PageBlob_GetPageRangesDiff", "header parameter x-ms-previous-snapshot-url: required is True, False in the SDK"):
        "snapshots of managed disks are named by it alone, never by `prevsnapshot`",
    ("blob.json", "PageBlob_UploadPages", "header parameter x-ms-range: required is True, False in the SDK"): ALWAYS_A_RANGE,
    ("blob.json", "PageBlob_ClearPages", "header parameter x-ms-range: required is True, False in the SDK"): ALWAYS_A_RANGE,
    ("compute.json", "ManagedDiskParameters", "diskEncryptionSet: SubResource, DiskEncryptionSetParameters in the SDK"): REFERENCE,
    ("disks.json", "Disks_RevokeAccess", "statuses: [200, 202, 204], [200, 202] in the SDK"): REVOKED,
    ("disks.json", "Snapshots_RevokeAccess", "statuses: [200, 202, 204], [200, 202] in the SDK"): REVOKED,
    ("disks.json", "DiskProperties", "completionPercent: read-only is True, False in the SDK"): SET_BY_SERVICE,
    ("disks.json", "SnapshotProperties", "copyCompletionError: read-only is True, False in the SDK"): SET_BY_SERVICE,
    ("disks.json", "SnapshotProperties", "completionPercent: read-only is True, False in the SDK"): SET_BY_SERVICE,
    ("disks.json", "AccessUri", "accessSAS: read-only is False, True in the SDK"): ANSWER,
    ("disks.json", "AccessUri", "securityDataAccessSAS: read-only is False, True in the SDK"): ANSWER,
    ("disks.json", "AccessUri", "securityMetadataAccessSAS: read-only is False, True in the SDK"): ANSWER,
    ("network.json", "NetworkInterfaceListResult", "nextLink: read-only is False, True in the SDK"): ANSWER,
    ("network.json", "NetworkInterface", "id: read-only is True, False in the SDK"): "it is the path of the request; a new NIC must not carry an old one",
    ("network.json", "NetworkInterfaceProperties", "networkSecurityGroup: SubResource, NetworkSecurityGroup in the SDK"): REFERENCE,
    ("network.json", "NetworkInterfaceProperties", "allowPort25Out: boolean, unknown to the SDK"): LATER,
    ("network.json", "NetworkInterfaceProperties", "defaultOutboundConnectivityEnabled: boolean, unknown to the SDK"): LATER,
    ("network.json", "NetworkInterfaceProperties", "virtualNetworkTapProvisioningState: string, unknown to the SDK"): LATER,
    ("network.json", "NetworkInterfaceIPConfiguration", "id: read-only is True, False in the SDK"): SET_BY_SERVICE,
    ("network.json", "NetworkInterfaceIPConfiguration", "type: read-only is True, False in the SDK"): SET_BY_SERVICE,
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "subnet: SubResource, Subnet in the SDK"): REFERENCE,
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "publicIPAddress: SubResource, PublicIPAddress in the SDK"): REFERENCE,
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "applicationSecurityGroups: [SubResource], [ApplicationSecurityGroup] in the SDK"):
        REFERENCE,
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "loadBalancerBackendAddressPools: [SubResource], [BackendAddressPool] in the SDK"):
        REFERENCE,
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "loadBalancerInboundNatRules: [SubResource], [InboundNatRule] in the SDK"): REFERENCE,
    (
        "network.json", "NetworkInterfaceIPConfigurationProperties",
        "applicationGatewayBackendAddressPools: [SubResource], [ApplicationGatewayBackendAddressPool] in the SDK",
    ): REFERENCE,
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "isInUseWithService: boolean, unknown to the SDK"): LATER,
    ("network.json", "PublicIPAddress", "id: read-only is True, False in the SDK"): "only read",
    ("network.json", "PublicIPAddressProperties", "ipConfiguration: read-only is False, True in the SDK"): "only read",
    ("network.json", "PublicIPAddressProperties", "ipConfiguration: SubResource, IPConfiguration in the SDK"): REFERENCE,
    ("network.json", "PublicIPAddressProperties", "natGateway: SubResource, NatGateway in the SDK"): REFERENCE,
    ("resources.json", "ResourceGroupListResult", "nextLink: read-only is False, True in the SDK"): ANSWER,
}

# That differences are seen: what changes in a document, its text before and after, and all that is then reported.
CHANGES = {
    "blob.json": [
        ("a header", "x-ms-copy-action", "x-ms-copy-deed", [
            "Blob_AbortCopyFromURL: header parameter x-ms-copy-deed: unknown to the SDK",
            "Blob_AbortCopyFromURL: header parameter x-ms-copy-action: missing, required in the SDK",
        ]),
        ("a constant", '["abort"]', '["stop"]', ["Blob_AbortCopyFromURL: header parameter x-ms-copy-action: values ['stop'], ['abort'] in the SDK"]),
        ("the type of a header", '"type": "integer", "format": "int64"', '"type": "string"', [
            "PageBlob_Create: header parameter x-ms-blob-content-length: string, int in the SDK",
        ]),
        ("a required parameter", '"copyid", "in": "query", "required": true', '"copyid", "in": "query"', [
            "Blob_AbortCopyFromURL: query parameter copyid: required is False, True in the SDK",
        ]),
        ("a path", "?comp=copy", "?comp=abort", [
            "Blob_AbortCopyFromURL: path: /{container}/{blob}?comp=abort, /{container}/{blob}?comp=copy in the SDK",
        ]),
        ("a method", '"head"', '"options"', ["Blob_GetProperties: method: OPTIONS, HEAD in the SDK"]),
        ("a body", "requestBody", "noBody", ["PageBlob_UploadPages: body: None, bytes in the SDK"]),
        ("a status", '"204"', '"200"', ["Blob_AbortCopyFromURL: statuses: [200], [204] in the SDK"]),
        ("what is explained", '"206": {', '"200": {}, "206": {', ["Blob_Download: statuses: [206], [200, 206] in the SDK: explained, but is none"]),
    ],
    "compute.json": [
        ("a place", '"If-None-Match", "in": "header"', '"If-None-Match", "in": "query"', [
            "VirtualMachines_CreateOrUpdate: query parameter If-None-Match: unknown to the SDK",
        ]),
        ("a type", '"lun": {"type": "integer"', '"lun": {"type": "string"', ["DataDisk: lun: string, int in the SDK"]),
        ("an enumeration", "DiskDeleteOptionTypes", "DeleteOptions", [
            "OSDisk: deleteOption: DeleteOptions, DiskDeleteOptionTypes in the SDK",
            "DataDisk: deleteOption: DeleteOptions, DiskDeleteOptionTypes in the SDK",
        ]),
        ("a value", '"FromImage"', '"Image"', ["DiskCreateOptionTypes: values ['FromImage', 'Image'] are on one side only"]),
        ("a member", '"toBeDetached"', '"detached"', ["DataDisk: detached: boolean, unknown to the SDK"]),
        ("a required member", '"required": ["lun", "createOption"]', '"required": ["createOption", "caching"]', [
            "DataDisk: lun: required is False, True in the SDK",
            "DataDisk: caching: required is True, False in the SDK",
        ]),
        ("a member that requests must carry", '"lun": {"type"', '"slot": {"type"', [
            "DataDisk: slot: integer, unknown to the SDK",
            "DataDisk: lun: missing, required in the SDK",
        ]),
        ("a read-only member", '"format": "int64", "readOnly": true, "description": "Requests', '"format": "int64", "description": "Requests', [
            "DataDisk: diskIOPSReadWrite: read-only is False, True in the SDK",
        ]),
        ("an answer", '{"$ref": "#/components/schemas/VirtualMachineInstanceView"}', '{"$ref": "#/components/schemas/VirtualMachine"}', [
            "VirtualMachines_InstanceView: answers: ['VirtualMachine'], ['VirtualMachineInstanceView'] in the SDK",
        ]),
    ],
    "network.json": [
        ("a path parameter", "publicIpAddressName", "publicIPAddressName", [
            "PublicIPAddresses_Get: path: /subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Network"
            "/publicIPAddresses/{publicIPAddressName}, /subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers"
            "/Microsoft.Network/publicIPAddresses/{publicIpAddressName} in the SDK",
            "PublicIPAddresses_Get: path parameter publicIPAddressName: unknown to the SDK",
            "PublicIPAddresses_Get: path parameter publicIpAddressName: missing, required in the SDK",
        ]),
    ],
    "subscriptions.json": [
        ("the version", '"version": "2022-12-01"', '"version": "2021-01-01"', ["Subscriptions_Get: version: 2021-01-01, 2022-12-01 in the SDK"]),
        ("an operation", "Subscriptions_Get", "Subscriptions_Read", ["Subscriptions_Read: the SDK has no such operation"]),
    ],
}


def run(checks, root, installed):
    seen = set()
    for file, package in PACKAGES.items():
        spec = json.loads((root / "arm-specs/specs" / file).read_text())
        version = spec["info"]["version"]
        checks.begin(f"arm-specs/{file} and the Python SDK, {version}")
        folder = installed / "azure" / package.format(version.replace("-", "_"))
        sdk = checks.check("sources of the SDK", functools.partial(Sdk, folder))
        if sdk is None:
            continue
        explain = Explain(file)
        for name, compare in comparisons(spec, sdk):
            checks.check(name, lambda name=name, compare=compare, explain=explain: explain(name, compare()), [])
        seen |= explain.seen
        for what, old, new, expected in CHANGES.get(file, []):
            checks.check(f"it is noticed when {what} changes", functools.partial(noticed, file, spec, sdk, old, new), expected)
    checks.begin("arm-specs")
    checks.check("every document is compared", lambda: sorted(path.name for path in (root / "arm-specs/specs").iterdir()), sorted(PACKAGES))
    checks.check("no difference is explained that is none", lambda: sorted(set(EXPLAINED) - seen), [])


class Explain:
    """Takes the differences that are meant out of a list, and remembers which those were."""

    def __init__(self, file):
        self.file, self.seen = file, set()

    def __call__(self, name, drift):
        known = [line for line in drift if (self.file, name, line) in EXPLAINED]
        self.seen.update((self.file, name, line) for line in known)
        return [line for line in drift if line not in known]

    def stale(self):
        return {key for key in EXPLAINED if key[0] == self.file} - self.seen


def comparisons(spec, sdk):
    """Each operation, model and enumeration, with the function that lists its differences."""
    for path, item in {**spec.get("paths", {}), **spec.get("x-ms-paths", {})}.items():
        for method, operation in item.items():
            yield operation["operationId"], functools.partial(compare_operation, spec, sdk, path, method.upper(), operation)
    sent = sent_models(spec)
    for name, schema in spec["components"].get("schemas", {}).items():
        if "enum" in schema:
            yield name, functools.partial(compare_enumeration, sdk, name, schema)
        else:
            yield name, functools.partial(compare_model, spec, sdk, name, schema, name in sent)


def sent_models(spec):
    """The models that bodies of requests consist of."""
    operations = [operation for item in spec.get("paths", {}).values() for operation in item.values()]
    names, waiting = set(), [operation["requestBody"] for operation in operations if "requestBody" in operation]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            reference = value.get("$ref", "")
            name = reference.rsplit("/", 1)[-1]
            if reference and name not in names:
                names.add(name)
                waiting.append(resolve(spec, value))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return names


def compare_operation(spec, sdk, path, method, operation):
    theirs = sdk.operation(operation["operationId"])
    if theirs is None:
        return ["the SDK has no such operation"]
    on_blobs = spec["info"]["x-target"] == "blob"
    answers = {model for response in operation["responses"].values() if (model := carried(resolve(spec, response)))}
    pairs = [
        ("method", method, theirs.method),
        ("path", without_labels(path), blob_address(operation["operationId"], theirs) if on_blobs else theirs.url),
        ("version", spec["info"]["version"], theirs.version),
        ("statuses", sorted(map(int, operation["responses"])), sorted(theirs.statuses)),
        ("body", carried(operation.get("requestBody", {})), "".join(theirs.bodies) or None),
        # Those of the Blob service are XML, of which the documents say nothing.
        ("answers", sorted(answers), [] if on_blobs else sorted(theirs.answers)),
        ("long-running", operation.get("x-ms-long-running-operation", False), theirs.long_running),
    ]
    drift = [f"{what}: {ours}, {other} in the SDK" for what, ours, other in pairs if ours != other]
    return drift + compare_parameters(spec, sdk, operation, theirs)


def without_labels(path):
    """A path without what only tells operations apart, as in `?comp=page&update`."""
    path, _, query = path.partition("?")
    pairs = [part for part in query.split("&") if "=" in part]
    return path + ("?" + "&".join(pairs) if pairs else "")


def blob_address(operation, theirs):
    """The SDK is given the address of a container or a blob as one; what it adds are the constants of the query."""
    assert theirs.url == "{url}", theirs.url
    path = "/{container}" if operation.startswith("Container_") else "/{container}/{blob}"
    query = [f"{name}={parameter.values[0]}" for (place, name), parameter in theirs.parameters.items() if place == "query" and parameter.values]
    return path + ("?" + "&".join(query) if query else "")


def carried(message):
    """The model of a body or an answer, `bytes`, or None."""
    for media, content in message.get("content", {}).items():
        return content["schema"]["$ref"].rsplit("/", 1)[-1] if media == "application/json" else "bytes"
    return None


def compare_parameters(spec, sdk, operation, theirs):
    ours = {(declared["in"], declared["name"]): declared for declared in (resolve(spec, entry) for entry in operation.get("parameters", []))}
    drift = []
    for (place, name), declared in ours.items():
        what, other = f"{place} parameter {name}", theirs.parameters.get((place, name))
        if other is None:
            drift.append(f"{what}: unknown to the SDK")
            continue
        if declared.get("required", False) != other.required:
            drift.append(f"{what}: required is {declared.get('required', False)}, {other.required} in the SDK")
        if not same_type(spec, declared["schema"], other.kind, other.enumeration):
            drift.append(f"{what}: {shown(declared['schema'])}, {other.kind} in the SDK")
        values = declared["schema"].get("enum")
        if other.values and name not in VERSIONS and values != other.values:
            drift.append(f"{what}: values {values}, {other.values} in the SDK")
        elif values and not other.values and not set(values) <= sdk.enums.get(other.enumeration, set()):
            drift.append(f"{what}: values {values} are unknown to the SDK")
    for (place, name), other in theirs.parameters.items():
        if other.required and (place, name) not in ours and name not in OF_HTTP and name != "url":
            drift.append(f"{place} parameter {name}: missing, required in the SDK")
    return drift


def compare_enumeration(sdk, name, schema):
    if name not in sdk.enums:
        return ["the SDK has no such enumeration"]
    apart = set(schema["enum"]) ^ sdk.enums[name]
    return [f"values {sorted(apart)} are on one side only"] if apart else []


def compare_model(spec, sdk, name, schema, is_sent):
    owner, prefix = NAMED.get(name, name), ""
    if not sdk.model(owner) and name.endswith("Properties"):
        # The SDK flattens what sits below `properties`.
        owner, prefix = name.removesuffix("Properties"), "properties."
    if not sdk.model(owner):
        return ["the SDK has no such model"]
    members = sdk.members(owner)
    drift = []
    for member, declared in schema["properties"].items():
        theirs = members.get(prefix + member)
        if theirs is None:
            flattened = any(other.startswith(f"{prefix}{member}.") for other in members)
            if not (flattened and shown(declared) == f"{owner}Properties"):
                drift.append(f"{member}: {shown(declared)}, unknown to the SDK")
            continue
        pairs = [
            ("read-only", declared.get("readOnly", False), theirs.read_only),
            ("required", member in schema.get("required", []), theirs.required),
        ]
        drift += [f"{member}: {what} is {ours}, {other} in the SDK" for what, ours, other in pairs if ours != other]
        if not same_type(spec, declared, theirs.kind, theirs.enumeration):
            drift.append(f"{member}: {shown(declared)}, {theirs.enumeration or theirs.kind} in the SDK")
    if is_sent:
        own = {name.removeprefix(prefix): theirs for name, theirs in members.items() if name.startswith(prefix)}
        drift += [
            f"{member}: missing, required in the SDK"
            for member, theirs in own.items()
            if theirs.required and "." not in member and member not in schema["properties"]
        ]
    return drift


def same_type(spec, declared, kind, enumeration):
    """Whether a schema fits what the SDK's serializer is told, and the enumeration that a string is of."""
    if "$ref" in declared:
        name = shown(declared)
        return (kind, enumeration) == ("str", name) if "enum" in resolve(spec, declared) else kind == NAMED.get(name, name)
    wanted = declared.get("type")
    if wanted is None:
        return True
    if wanted == "array":
        return kind.startswith("[") and same_type(spec, declared["items"], kind[1:-1], enumeration)
    if wanted == "object":
        return kind == "object" or kind.startswith("{") and same_type(spec, declared.get("additionalProperties", {}), kind[1:-1], enumeration)
    return SCALARS.get(kind) == wanted


def shown(schema):
    """A type as it is written in a difference."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[-1]
    return f"[{shown(schema['items'])}]" if "items" in schema else schema.get("type", "anything")


def resolve(spec, value):
    while "$ref" in value:
        target = spec
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def noticed(file, spec, sdk, old, new):
    """What is reported anew after a change in the text of a document."""
    text = json.dumps(spec)
    assert old in text, f"{old} is not in {file}"
    before = reported(file, spec, sdk)
    return [line for line in reported(file, json.loads(text.replace(old, new)), sdk) if line not in before]


def reported(file, spec, sdk):
    """All that is wrong with a document."""
    explain = Explain(file)
    drift = [f"{name}: {line}" for name, compare in comparisons(spec, sdk) for line in explain(name, compare())]
    return drift + [f"{name}: {line}: explained, but is none" for _, name, line in sorted(explain.stale())]
