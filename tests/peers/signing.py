"""Shared Key and connection strings: what the Python SDK makes of them, and what we do."""

import base64
import email.utils
import hashlib
import hmac
import os
import random
import string
import urllib.parse

REQUESTS = 1000
BATCH = 100
STRINGS = 500

HEADERS = {
    "content-encoding": ["gzip", "identity"],
    "content-language": ["en-GB, de"],
    "content-md5": ["Q2hlY2sgSW50ZWdyaXR5IQ=="],
    "content-type": ["application/octet-stream", "application/xml; charset=utf-8"],
    "if-match": ['"0x8CB171BA9E94B0B"', "*"],
    "if-modified-since": ["Mon, 23 Nov 2026 09:10:11 GMT"],
    "if-none-match": ["*"],
    "if-unmodified-since": ["Mon, 23 Nov 2026 09:10:11 GMT"],
    "x-ms-version": ["2021-12-02", "2025-11-05"],
    "x-ms-range": ["bytes=0-511", "bytes=4096-"],
    "x-ms-blob-type": ["PageBlob"],
    "x-ms-blob-content-length": ["1099511627776"],
    "x-ms-blob-sequence-number": ["0"],
    "x-ms-page-write": ["update", "clear"],
    "x-ms-copy-source": ["https://md-x.z4.blob.storage.azure.net/a/abcd?sv=2018-03-28&sr=b&sig=a%2Fb%3D"],
    "x-ms-copy-action": ["abort"],
    "x-ms-client-request-id": ["6b1b3a3e-0000-4000-8000-0123456789ab"],
    "x-ms-if-sequence-number-le": ["7"],
    # Not signed.
    "accept": ["application/xml"],
    "user-agent": ["azsdk-python"],
    "x-custom": ["x-ms-odd: 1"],
}
QUERY = ["comp", "restype", "include", "prefix", "marker", "maxresults", "timeout", "snapshot", "prevsnapshot", "copyid", "x_1", "x-1", "x1"]
PATH = ["disks", "os%20disk", "%C3%A9t%C3%A9", "a+b", "a%2Bb", "~.-_", "(1)", "%2F", "x%3By=1,2", "$root", "@azure-vm"]
TEXT = string.ascii_letters + string.digits + " !\"#$%&'()*,-./:;<=>?@[]^_`{|}~éß€😀"
PROBE_DATE = "Thu, 01 Jan 1970 00:00:00 GMT"


def run(checks, peer):
    seed = int(os.environ.get("PEERS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"      PEERS_SEED={seed}", flush=True)
    shared_key(checks, peer, random.Random(seed))
    connection_strings(checks, peer, random.Random(seed))


def sdk_signature(account, key, method, url, headers):
    from azure.core.pipeline import PipelineContext, PipelineRequest
    from azure.core.pipeline.transport import HttpRequest
    from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

    request = HttpRequest(method, url, headers=dict(headers))
    SharedKeyCredentialPolicy(account, key).on_request(PipelineRequest(request, PipelineContext(None)))
    return request.headers["Authorization"]


def random_request(rng, account):
    headers = {name: rng.choice(values) for name, values in HEADERS.items() if rng.random() < 0.3}
    for _ in range(rng.randrange(5)):
        name = "".join(rng.choice("abzABZ019__") for _ in range(rng.randrange(1, 8)))
        value = "".join(rng.choice(string.ascii_letters + string.digits + "  :;,=\"'%+/") for _ in range(rng.randrange(20))).strip()
        headers["x-ms-meta-" + name] = value
    # Names of headers differ in more than case.
    headers = list({name.lower(): (name, value) for name, value in headers.items()}.values())
    base = rng.choice([f"https://{account}.blob.core.windows.net", f"http://127.0.0.1:10000/{account}"])
    path = "/".join(rng.choice(PATH) for _ in range(rng.randrange(4)))
    parameters = []
    for name in rng.sample(QUERY, rng.randrange(5)):
        value = "".join(rng.choice(TEXT) for _ in range(rng.randrange(12)))
        parameters.append(name + rng.choice(["=", "=" + urllib.parse.quote(value, safe=rng.choice(["", "/", "/:,;$~!*'()"])), ""]))
    query = "?" + "&".join(parameters) if parameters else ""
    return {
        "method": rng.choice(["GET", "HEAD", "PUT", "DELETE", "POST"]), "url": f"{base}/{path}{query}",
        "headers": headers, "length": rng.choice([0, 0, 1, 512, 4096, 123457]),
    }


def random_account(rng):
    account = "".join(rng.choice(string.ascii_lowercase + string.digits) for _ in range(rng.randrange(3, 25)))
    return account, base64.b64encode(rng.randbytes(rng.choice([1, 2, 3, 32, 64, 65]))).decode()


def shared_key(checks, peer, rng):
    checks.begin("Shared Key and the Python SDK")

    def same():
        for _ in range(REQUESTS // BATCH):
            account, key = random_account(rng)
            now = rng.randrange(1 << 31)
            date = email.utils.formatdate(now, usegmt=True)
            requests = [random_request(rng, account) for _ in range(BATCH)]
            ours = peer("sign", account=account, key=key, now=now, requests=requests)
            for request, signature in zip(requests, ours, strict=True):
                sent = [*request["headers"], ("Content-Length", str(request["length"])), ("x-ms-date", date)]
                theirs = sdk_signature(account, key, request["method"], request["url"], sent)
                if signature != theirs:
                    raise AssertionError(f"ours {signature}, the SDK's {theirs}: {request}")

    checks.check(f"the same signatures of {REQUESTS} random requests", same)

    account, key, now = "abc", "ZXhhbXBsZQ==", 1795425011
    date = email.utils.formatdate(now, usegmt=True)

    def signed(method, path, headers=(), length=0):
        request = {"method": method, "url": f"https://abc.blob.core.windows.net{path}", "headers": headers, "length": length}
        return peer("sign", account=account, key=key, now=now, requests=[request])[0]

    def by_rule(*lines):
        """What the documentation says is signed, computed here."""
        digest = hmac.new(base64.b64decode(key), "\n".join(lines).encode(), hashlib.sha256).digest()
        return f"SharedKey {account}:{base64.b64encode(digest).decode()}"

    def differs(name, ours, theirs, rule):
        def compare():
            assert ours != theirs, "the SDK signs the same: compare it with the others"
            return ours

        checks.check(f"{name}: as documented, unlike the SDK", compare, rule)

    url = "https://abc.blob.core.windows.net"
    differs(
        "a parameter with several values (it keeps the last)",
        signed("GET", "/c?include=snapshots&comp=list&include=metadata"),
        sdk_signature(account, key, "GET", url + "/c?include=snapshots&comp=list&include=metadata", [("x-ms-date", date)]),
        by_rule("GET", *[""] * 11, f"x-ms-date:{date}", "/abc/c", "comp:list", "include:metadata,snapshots"),
    )
    differs(
        "a Range header (it sends x-ms-range only)",
        signed("GET", "/c/b", [("Range", "bytes=0-511")]),
        sdk_signature(account, key, "GET", url + "/c/b", [("Range", "bytes=0-511"), ("x-ms-date", date)]),
        by_rule("GET", *[""] * 10, "bytes=0-511", f"x-ms-date:{date}", "/abc/c/b"),
    )
    differs(
        "a Date beside x-ms-date (it never sends one)",
        signed("GET", "/c/b", [("Date", date)]),
        sdk_signature(account, key, "GET", url + "/c/b", [("Date", date), ("x-ms-date", date)]),
        by_rule("GET", *[""] * 11, f"x-ms-date:{date}", "/abc/c/b"),
    )
    differs(
        "a semicolon in a path (it drops what follows)",
        signed("GET", "/c/b;v=1"),
        sdk_signature(account, key, "GET", url + "/c/b;v=1", [("x-ms-date", date)]),
        by_rule("GET", *[""] * 11, f"x-ms-date:{date}", "/abc/c/b;v=1"),
    )
    differs(
        "a plus sign in a query is a blank (it always sends %20)",
        signed("GET", "/c?prefix=a+b"),
        sdk_signature(account, key, "GET", url + "/c?prefix=a+b", [("x-ms-date", date)]),
        by_rule("GET", *[""] * 11, f"x-ms-date:{date}", "/abc/c", "prefix:a b"),
    )
    differs(
        "blanks around the value of a header (it does not take them off)",
        signed("GET", "/c", [("x-ms-meta-a", "  b  ")]),
        sdk_signature(account, key, "GET", url + "/c", [("x-ms-meta-a", "  b  "), ("x-ms-date", date)]),
        by_rule("GET", *[""] * 11, f"x-ms-date:{date}", "x-ms-meta-a:b", "/abc/c"),
    )
    checks.check(
        "a header that is not plain text is refused", lambda: signed("GET", "/c", [("x-ms-meta-a", "é")]),
        {"error": "a header or the account name is not plain text"},
    )


def sdk_parse(text):
    """Endpoint and credential as the SDK reads them, in our words."""
    from azure.storage.blob._shared.base_client import parse_connection_str

    try:
        primary, _, credential = parse_connection_str(text, None, "blob")
    except ValueError as error:
        return {"error": str(error)}
    if not urllib.parse.urlparse(primary).scheme:
        primary = "https://" + primary
    if isinstance(credential, dict):
        signature = sdk_signature(
            credential["account_name"], credential["account_key"], "GET", "https://probe/", [("x-ms-date", PROBE_DATE)]
        )
        access = {"key": signature}
    elif credential is None:
        access = None
    elif "sig=" in credential:
        access = {"sas": credential}
    else:
        # The development account: the name is the last part of its address.
        name = primary.rstrip("/").rsplit("/", 1)[-1]
        access = {"key": sdk_signature(name, credential, "GET", "https://probe/", [("x-ms-date", PROBE_DATE)])}
    return {"endpoint": primary.rstrip("/"), "access": access}


def our_parse(peer, strings):
    return [
        parsed if "error" in parsed else {"endpoint": parsed["endpoint"].rstrip("/"), "access": parsed["access"]}
        for parsed in peer("connections", strings=strings)
    ]


def random_string(rng):
    account, key = random_account(rng)
    parts = {"AccountName": account}
    if rng.random() < 0.6:
        parts["AccountKey"] = key
    if "AccountKey" not in parts or rng.random() < 0.1:
        parts["SharedAccessSignature"] = "sv=2021-12-02&ss=b&srt=co&sp=rw&se=2030-01-01T00:00:00Z&sig=" + urllib.parse.quote(key, safe="")
    if rng.random() < 0.5:
        # Without a suffix the SDK does not heed the protocol.
        parts["EndpointSuffix"] = rng.choice(["core.windows.net", "core.chinacloudapi.cn", "blob.localhost:10443"])
        if rng.random() < 0.7:
            parts["DefaultEndpointsProtocol"] = rng.choice(["https", "http"])
    if rng.random() < 0.3:
        parts["BlobEndpoint"] = rng.choice([
            f"https://{account}.blob.example:8443/", f"http://127.0.0.1:10000/{account}", "https://stage.example", "http://[::1]:10000/x",
        ])
        if rng.random() < 0.3:
            del parts["AccountName"]
            parts.pop("AccountKey", None)
            parts.setdefault("SharedAccessSignature", "sv=1&sig=a%2Fb%3D")
        if rng.random() < 0.3:
            parts["BlobSecondaryEndpoint"] = "https://secondary.example"
    for other in ("QueueEndpoint", "TableEndpoint", "FileEndpoint"):
        if rng.random() < 0.2:
            parts[other] = "https://other.example/a=b"
    items = list(parts.items())
    rng.shuffle(items)
    change = rng.choice([str, str.lower, str.upper])
    return ";".join(f"{change(name)}={value}" for name, value in items) + rng.choice(["", ";"])


def connection_strings(checks, peer, rng):
    checks.begin("Connection strings and the Python SDK")

    def same():
        strings = [random_string(rng) for _ in range(STRINGS)]
        for text, ours in zip(strings, our_parse(peer, strings), strict=True):
            theirs = sdk_parse(text)
            if ours != theirs:
                raise AssertionError(f"ours {ours}, the SDK's {theirs}: {text}")

    checks.check(f"{STRINGS} random ones are read alike", same)

    alike = {
        "the development account": "UseDevelopmentStorage=true",
        "a semicolon at the end": "AccountName=abc;AccountKey=AA==;",
        "a key that ends in =": "AccountName=abc;AccountKey=AAA=",
        "a signature with = and & in it": "BlobEndpoint=https://a.example;SharedAccessSignature=sv=1&sig=a=b&se=c",
        "the key goes before a signature": "AccountName=abc;SharedAccessSignature=sig=1;AccountKey=AA==",
    }
    for name, text in alike.items():
        checks.check(name, lambda text=text: our_parse(peer, [text])[0], sdk_parse(text))

    good = "AccountName=abc;AccountKey=AA=="
    # Name, the string, what we make of it, what the SDK makes of it.
    refused = {
        "no part at all: refused by both": ("", "AccountKey is missing", "malformed"),
        "a part without =: refused by both": (good + ";oops", "not key=value", "malformed"),
        "neither account nor endpoint: refused by both": ("AccountKey=AA==", "AccountName is missing", "missing required"),
    }
    for name, (text, ours, theirs) in refused.items():
        def both(text=text, ours=ours, theirs=theirs):
            return ours in our_parse(peer, [text])[0].get("error", ""), theirs in sdk_parse(text).get("error", "")

        checks.check(name, both, (True, True))
    stricter = {
        "an unknown key (a typing error)": (good + ";EndpointSufix=x.y", "unknown key"),
        "a key given twice": (good + ";AccountName=abd", "given twice"),
        "no credential": ("AccountName=abc", "AccountKey is missing"),
        "a name that no account can have": ("AccountName=Abc;AccountKey=AA==", "AccountName must have"),
        "a protocol that is none": (good + ";EndpointSuffix=x.y;DefaultEndpointsProtocol=ftp", "https or http"),
        "an endpoint with a query": (good + ";BlobEndpoint=https://a.b/?x=1", "of host and path alone"),
        "UseDevelopmentStorage=false": (good + ";UseDevelopmentStorage=false", "can only be true"),
    }
    for name, (text, ours) in stricter.items():
        def one(text=text, ours=ours):
            return ours in our_parse(peer, [text])[0].get("error", ""), "error" in sdk_parse(text)

        checks.check(f"{name}: refused, where the SDK goes on", one, (True, False))
    at_once = {
        "a key that is not base64": ("AccountName=abc;AccountKey=%", "is not base64"),
        "a signature without sig": ("AccountName=abc;SharedAccessSignature=sv=1", "no sig parameter"),
    }
    for name, (text, ours) in at_once.items():
        checks.check(f"{name}: refused at once, where the SDK fails later", lambda text=text, ours=ours: ours in our_parse(peer, [text])[0]["error"], True)
    kinder = {
        "blanks around keys and values": (" AccountName = abc ; AccountKey = AA== ", good),
        "an empty part in the middle": ("AccountName=abc;;AccountKey=AA==", good),
        "a signature with its question mark": ("AccountName=abc;SharedAccessSignature=?sv=1&sig=x", "AccountName=abc;SharedAccessSignature=sv=1&sig=x"),
        "http without a suffix": (good + ";DefaultEndpointsProtocol=http", good + ";DefaultEndpointsProtocol=http;EndpointSuffix=core.windows.net"),
        "UseDevelopmentStorage in any case": ("UseDevelopmentStorage=TRUE", "UseDevelopmentStorage=true"),
        "a secondary endpoint alone": (good + ";BlobSecondaryEndpoint=https://s.example", good),
    }
    for name, (text, plain) in kinder.items():
        def meant(text=text, plain=plain):
            expected = sdk_parse(plain)
            return our_parse(peer, [text])[0] == expected, sdk_parse_or_fail(text) == expected

        checks.check(f"{name}: read as what is meant, unlike the SDK", meant, (True, False))
    checks.check(
        "a proxy of the development account: heeded, unlike the SDK",
        lambda: (our_parse(peer, ["UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://127.0.0.9"])[0]["endpoint"],
                 sdk_parse("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://127.0.0.9")["endpoint"]),
        ("http://127.0.0.9:10000/devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1"),
    )


def sdk_parse_or_fail(text):
    try:
        return sdk_parse(text)
    except Exception as error:  # noqa: BLE001 - a key with blanks fails when it signs
        return error
