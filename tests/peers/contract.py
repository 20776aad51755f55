"""Compares arm-specs with what Microsoft generated from the same API versions: the Python SDK.

The SDK's sources are parsed, not imported: paths, methods, API versions and accepted statuses come from its operations, names,
types, read-only and required members from its models, values from its enumerations.
"""

import ast
import json
import pathlib
import re

# Where the SDK keeps the models of a specification. `{}` stands for the API version.
PACKAGES = {
    "authorization.json": "authorization/v{}",
    "compute.json": "compute/v{}",
    "disks.json": "compute/v{}",
    "network.json": "network",
    "resources.json": "resource/resources/v{}",
    "subscriptions.json": "resource/subscriptions/v{}",
}


SCALARS = {"str": "string", "int": "integer", "long": "integer", "bool": "boolean", "float": "number", "iso-8601": "string"}


# Differences that are meant, by specification, model or operation, and the beginning of what is reported. One that no longer
# shows is reported too.
EXPLAINED = {
    ("compute.json", "UserAssignedIdentity", "the SDK has no such model"): "the SDK numbers the names that the generator made up",
    ("compute.json", "ManagedDiskParameters", "diskEncryptionSet"): "a sub-resource with an id; the SDK gives it a class of its own",
    ("disks.json", "Disks_RevokeAccess", "statuses"): "204 is what Azure answers where nothing was open",
    ("disks.json", "Snapshots_RevokeAccess", "statuses"): "204 is what Azure answers where nothing was open",
    ("disks.json", "DiskProperties", "purchasePlan"): "the SDK tells the purchase plans of disks and VMs apart by name",
    ("disks.json", "DiskProperties", "completionPercent"): "the service sets it; a new disk must not carry it",
    ("disks.json", "SnapshotProperties", "purchasePlan"): "the SDK tells the purchase plans of disks and VMs apart by name",
    ("disks.json", "SnapshotProperties", "copyCompletionError"): "the service sets it; a new snapshot must not carry it",
    ("disks.json", "SnapshotProperties", "completionPercent"): "the service sets it; a new snapshot must not carry it",
    ("disks.json", "PurchasePlan", "the SDK has no such model"): "it is DiskPurchasePlan there",
    ("disks.json", "AccessUri", "accessSAS: read-only"): "an answer only; the flag serves what is sent back",
    ("disks.json", "AccessUri", "securityDataAccessSAS: read-only"): "an answer only; the flag serves what is sent back",
    ("disks.json", "AccessUri", "securityMetadataAccessSAS: read-only"): "an answer only; the flag serves what is sent back",
    ("network.json", "NetworkInterfaceListResult", "nextLink: read-only"): "an answer only; the flag serves what is sent back",
    ("network.json", "NetworkInterface", "id: read-only"): "the id is the path of the request; a new NIC must not carry an old one",
    ("network.json", "NetworkInterfaceProperties", "networkSecurityGroup"): "an interface refers to it by its id alone",
    ("network.json", "NetworkInterfaceProperties", "allowPort25Out"): "answered by later versions; a new NIC must not carry it",
    ("network.json", "NetworkInterfaceProperties", "defaultOutboundConnectivityEnabled"): "answered by later versions; a new NIC must not carry it",
    ("network.json", "NetworkInterfaceProperties", "virtualNetworkTapProvisioningState"): "answered by the service; a new NIC must not carry it",
    ("network.json", "NetworkInterfaceIPConfiguration", "id: read-only"): "the service sets it; a new NIC must not carry an old one",
    ("network.json", "NetworkInterfaceIPConfiguration", "type: read-only"): "the service sets it",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "subnet"): "referred to by its id alone",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "publicIPAddress"): "referred to by its id alone",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "applicationSecurityGroups"): "referred to by their ids alone",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "loadBalancerBackendAddressPools"): "referred to by their ids alone",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "loadBalancerInboundNatRules"): "referred to by their ids alone",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "applicationGatewayBackendAddressPools"): "referred to by their ids alone",
    ("network.json", "NetworkInterfaceIPConfigurationProperties", "isInUseWithService"): "answered by the service; a new NIC must not carry it",
    ("network.json", "PublicIPAddress", "id: read-only"): "only read",
    ("network.json", "PublicIPAddressProperties", "ipConfiguration: read-only"): "only read",
    ("network.json", "PublicIPAddressProperties", "ipConfiguration: #"): "referred to by its id alone",
    ("network.json", "PublicIPAddressProperties", "natGateway"): "referred to by its id alone",
    ("resources.json", "ResourceGroupListResult", "nextLink: read-only"): "an answer only; the flag serves what is sent back",
}


class Sdk:
    """What one package says."""

    def __init__(self, folder):
        self.classes, self.enums, self.requests, self.accepted = {}, {}, {}, {}
        for path in sorted(folder.rglob("*.py")):
            if "aio" in path.parts:
                continue
            tree = ast.parse(path.read_text())
            if "models" in path.parts:
                self._models(tree)
            elif "operations" in path.parts:
                self._operations(path, tree)

    def _models(self, tree):
        for node in tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            bases = [base.id if isinstance(base, ast.Name) else base.attr for base in node.bases if isinstance(base, (ast.Name, ast.Attribute))]
            values = {
                target.id: assign.value
                for assign in node.body if isinstance(assign, ast.Assign)
                for target in assign.targets if isinstance(target, ast.Name)
            }
            if "Enum" in bases:
                self.enums[node.name] = {value.value for value in values.values() if isinstance(value, ast.Constant)}
            else:
                self.classes[node.name] = (
                    bases,
                    ast.literal_eval(values["_attribute_map"]) if "_attribute_map" in values else {},
                    ast.literal_eval(values["_validation"]) if "_validation" in values else {},
                )

    def _operations(self, path, tree):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            if node.name.startswith("build_"):
                request = self._request(node)
                if request:
                    self.requests[path, node.name] = request
                continue
            used, statuses = None, None
            for inner in ast.walk(node):
                if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id.startswith("build_"):
                    used = used or inner.func.id
                if isinstance(inner, ast.Compare) and isinstance(inner.ops[0], ast.NotIn) and "status_code" in ast.dump(inner.left):
                    statuses = ast.literal_eval(inner.comparators[0])
            if used and statuses:
                self.accepted.setdefault((path, used), set()).update(statuses)

    @staticmethod
    def _request(node):
        url = method = version = None
        query = set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                if inner.value.startswith("/") and url is None:
                    url = inner.value
                if re.fullmatch(r"20\d\d-\d\d-\d\d", inner.value):
                    version = inner.value
            if isinstance(inner, ast.keyword) and inner.arg == "method":
                method = inner.value.value
            if isinstance(inner, ast.Subscript) and isinstance(inner.value, ast.Name) and inner.value.id == "_params":
                query.add(inner.slice.value)
        return (method, url, version, query) if url and method else None

    def members(self, name):
        """Wire name -> (type, read-only, required), inherited ones included."""
        found = {}
        bases, attributes, validation = self.classes[name]
        for base in bases:
            if base in self.classes:
                found.update(self.members(base))
        for attribute, entry in attributes.items():
            rules = validation.get(attribute, {})
            found[entry["key"]] = (entry["type"], rules.get("readonly", False), rules.get("required", False))
        return found


def shape(path):
    return re.sub(r"\{[^}]+\}", "{}", path)


def resolve(spec, value):
    while "$ref" in value:
        target = spec
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def run(checks, root, installed):
    seen = set()
    for file, package in PACKAGES.items():
        spec = json.loads((root / "arm-specs/specs" / file).read_text())
        version = spec["info"]["version"]
        folder = installed / "azure/mgmt" / package.format(version.replace("-", "_"))
        explain = Explain(file, seen)
        checks.begin(f"arm-specs/{file} and the Python SDK, {version}")
        sdk = checks.check("sources of the SDK", lambda folder=folder: loaded(folder))
        if sdk is None:
            continue
        for path, item in spec["paths"].items():
            for method, operation in item.items():
                if isinstance(operation, dict) and "operationId" in operation:
                    checks.check(
                        operation["operationId"],
                        lambda: explain(operation["operationId"], compare_operation(spec, sdk, version, path, method.upper(), operation)), [],
                    )
        for name, schema in spec["components"]["schemas"].items():
            checks.check(name, lambda: explain(name, compare_schema(spec, sdk, name, schema)), [])
    checks.begin("arm-specs")
    checks.check("no difference is explained that is none", lambda: sorted(set(EXPLAINED) - seen), [])


class Explain:
    """Takes the differences that are meant out of a list, and remembers which those were."""

    def __init__(self, file, seen):
        self.file, self.seen = file, seen

    def __call__(self, name, drift):
        rest = []
        for line in drift:
            known = [key for key in EXPLAINED if key[:2] == (self.file, name) and line.startswith(key[2])]
            self.seen.update(known)
            if not known:
                rest.append(line)
        return rest


def loaded(folder):
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    sdk = Sdk(folder)
    assert sdk.classes and sdk.requests, f"nothing found in {folder}"
    return sdk


def compare_operation(spec, sdk, version, path, method, operation):
    found = [
        (name, request) for name, request in sdk.requests.items()
        if request[0] == method and shape(request[1]) == shape(path)
    ]
    if not found:
        return [f"the SDK has no {method} {path}"]
    name, (_, _, found_version, query) = found[0]
    drift = []
    if found_version and found_version != version:
        drift.append(f"API version {found_version}")
    ours = {int(status) for status in operation["responses"] if status.isdigit() and int(status) < 300}
    theirs = sdk.accepted.get(name, set())
    if ours != theirs:
        drift.append(f"statuses {sorted(ours)}, the SDK accepts {sorted(theirs)}")
    for parameter in operation.get("parameters", []):
        parameter = resolve(spec, parameter)
        if parameter["in"] == "query" and parameter["name"] not in query:
            drift.append(f"query parameter {parameter['name']} is unknown to the SDK")
    return drift


def compare_schema(spec, sdk, name, schema):
    if "enum" in schema:
        if name not in sdk.enums:
            return ["the SDK has no such enumeration"]
        ours, theirs = set(schema["enum"]), sdk.enums[name]
        return [f"values {sorted(ours ^ theirs)} are on one side only"] if ours != theirs else []
    owner, prefix = name, ""
    if name not in sdk.classes and name.endswith("Properties"):
        # The SDK flattens what sits below `properties`.
        owner, prefix = name.removesuffix("Properties"), "properties."
    if owner not in sdk.classes:
        return ["the SDK has no such model"]
    members = sdk.members(owner)
    drift = []
    for member, declared in schema.get("properties", {}).items():
        key = (prefix + member).replace("@", "\\@")
        if key not in members:
            if any(other.startswith(key + ".") for other in members):
                continue
            drift.append(f"{member}: unknown to the SDK")
            continue
        kind, read_only, required = members[key]
        if declared.get("readOnly", False) != read_only:
            drift.append(f"{member}: read-only is {declared.get('readOnly', False)}, {read_only} in the SDK")
        if member in schema.get("required", []) and not required:
            drift.append(f"{member}: required here only")
        if not same_type(spec, declared, kind, sdk):
            drift.append(f"{member}: {declared.get('type') or declared.get('$ref') or 'anything'}, {kind} in the SDK")
    return drift


def same_type(spec, declared, kind, sdk):
    if "$ref" in declared:
        name = declared["$ref"].rsplit("/", 1)[-1]
        target = resolve(spec, declared)
        if "enum" in target:
            return kind == "str"
        return kind == name
    wanted = declared.get("type")
    if wanted is None:
        return True
    if wanted == "array":
        return kind.startswith("[") and same_type(spec, declared["items"], kind[1:-1], sdk)
    if wanted == "object":
        return kind.startswith("{") or kind == "object"
    return SCALARS.get(kind) == wanted
