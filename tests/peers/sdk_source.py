"""What the sources of Microsoft's Python SDK say of the service, as far as arm-specs says something of it.

They are parsed, not imported: requests come from the functions `build_…_request`, bodies, answers and accepted statuses from
the methods that call them, members from the models, values from the enumerations.
"""

import ast
import dataclasses
import re

# A function of the serializer, and where it puts a parameter.
PLACES = {"url": "path", "query": "query", "header": "header"}


@dataclasses.dataclass
class Parameter:
    """`values` are those of a constant, `enumeration` the name of a list of known ones."""

    kind: str
    required: bool
    values: list | None
    enumeration: str | None


@dataclasses.dataclass
class Operation:
    """A request, and what the methods that send it know. A body is the name of a model, or `bytes`."""

    method: str
    url: str
    version: str | None
    parameters: dict
    statuses: set = dataclasses.field(default_factory=set)
    bodies: set = dataclasses.field(default_factory=set)
    answers: set = dataclasses.field(default_factory=set)
    long_running: bool = False


@dataclasses.dataclass
class Member:
    """`kind` is what the serializer calls it."""

    kind: str
    read_only: bool
    required: bool
    enumeration: str | None


class Sdk:
    """What one package says."""

    def __init__(self, folder):
        if not folder.is_dir():
            raise FileNotFoundError(folder)
        self._classes, self.enums, self._operations = {}, {}, {}
        for path in sorted(folder.rglob("*.py")):
            if "aio" in path.parts:
                continue
            tree = ast.parse(path.read_text())
            if "models" in path.parts:
                self._read_models(tree)
            elif "operations" in path.parts:
                self._read_operations(path, tree)
        assert self._classes and self._operations, f"nothing found in {folder}"

    def operation(self, name):
        """By its `Group_Verb`; some packages have a file per group, others one for all."""
        return self._operations.get(plain(name))

    def model(self, name):
        return name in self._classes

    def members(self, name):
        """Members by their name on the wire, inherited ones included."""
        found = {}
        bases, attributes, validation, enumerations = self._classes[name]
        for base in bases:
            if base in self._classes:
                found.update(self.members(base))
        for attribute, entry in attributes.items():
            rules = validation.get(attribute, {})
            found[entry["key"].replace("\\", "")] = Member(
                entry["type"], rules.get("readonly", False), rules.get("required", False), enumerations.get(attribute)
            )
        return found

    def _read_models(self, tree):
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
                self._classes[node.name] = (
                    bases,
                    ast.literal_eval(values["_attribute_map"]) if "_attribute_map" in values else {},
                    ast.literal_eval(values["_validation"]) if "_validation" in values else {},
                    # The type on the wire is `str`; the enumeration stands in the documentation alone.
                    dict(re.findall(r":vartype (\w+):\s+str\s+or\s+~[\w.]+\.(\w+)", ast.get_docstring(node) or "")),
                )

    def _read_operations(self, path, tree):
        group = "" if path.stem == "_operations" else path.stem.removesuffix("_operations")
        builders = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("build_"):
                request = read_request(node)
                if request:
                    builders[node.name] = request
                    self._operations[plain(group + node.name.removeprefix("build_").removesuffix("_request"))] = request
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                read_methods(node, builders)


def plain(name):
    """A name that is the same for `PublicIPAddresses_Get` and `public_ip_addresses_get`."""
    return name.replace("_", "").lower()


def read_request(function):
    """What `build_…_request` makes, unless it makes none."""
    constants, defaults, method, url = {}, {}, None, None
    enumerations = {
        argument.arg: found[1]
        for argument in function.args.args + function.args.kwonlyargs
        if (found := re.search(r"_models\.(\w+)", ast.unparse(argument.annotation)))
    }
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name, annotation = node.target.id, node.annotation
            strings = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            defaults[name] = strings[-1] if strings else None
            if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
                constants[name] = [part.value for part in ast.walk(annotation.slice) if isinstance(part, ast.Constant)]
        if isinstance(node, ast.keyword) and node.arg == "method":
            method = node.value.value
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]) == "'template_url'":
            url = node.args[1].value
    if not method or not url:
        return None
    parameters = {}
    for name, call, required in serialized(function.body):
        variable, kind = ast.unparse(call.args[1]), call.args[2].value
        parameters[PLACES[call.func.attr], name] = Parameter(kind, required, constants.get(variable), enumerations.get(variable))
    return Operation(method, url, defaults.get("api_version") or defaults.get("version"), parameters)


def serialized(statements, required=True):
    """What is written into a request: the name on the wire, the call of the serializer, and whether it is always."""
    for statement in statements:
        found = []
        if isinstance(statement, ast.If):
            yield from serialized(statement.body, required=False)
        elif isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
            if isinstance(target, ast.Subscript) and ast.unparse(target.value) in ("_params", "_headers"):
                found = [(target.slice, value)]
            elif isinstance(target, ast.Name) and target.id == "path_format_arguments":
                found = zip(value.keys, value.values, strict=True)
        for name, call in found:
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("_SERIALIZER."):
                yield name.value, call, required


def read_methods(group, builders):
    """Adds what the methods of a group of operations know to the requests that they send."""
    sent, answers, begun_by = {}, {}, {}
    for method in group.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        request, statuses, bodies, read = None, set(), set(), set()
        for node in ast.walk(method):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.NotIn) and "status_code" in ast.unparse(node.left):
                statuses |= set(ast.literal_eval(node.comparators[0]))
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in builders:
                request = builders[called]
                if any(keyword.arg == "content" for keyword in node.keywords):
                    bodies.add("bytes")
            elif called == "self._serialize.body":
                bodies.add(node.args[1].value)
            elif called == "self._deserialize" and "headers" not in ast.unparse(node.args[1]):
                read.add(node.args[0].value)
            elif called.startswith("self._") and called.endswith("_initial"):
                begun_by[called.removeprefix("self.")] = method.name
        answers[method.name] = read
        if request:
            sent[method.name] = request
            request.statuses |= statuses
            # A model may also be given as the bytes of its JSON.
            request.bodies |= bodies - {"bytes"} or bodies
            request.answers |= read
    # What a long-running operation answers in the end is read by the method that begins it.
    for name, beginning in begun_by.items():
        sent[name].long_running = True
        sent[name].answers |= answers[beginning]
