"""Clients that are not ours against the emulator, and ours against servers and formats that are not ours."""

import argparse
import logging
import os
import pathlib
import random
import signal
import sys
import threading
import traceback

import azure_cli
import contract
import formats
import python_sdk
import quick_start
import signing
import static_file
from azurite import Azurite
from azurite import run as azurite_run
from checks import Checks
from emulator import MIB, Emulator
from ours import AzureVm, Peer

ROOT = pathlib.Path(__file__).parents[2]


def contents():
    """Disks by what is on them; sizes that are no multiple of a VHD's cylinders among them."""
    rng = random.Random(1)
    scattered = bytearray(23 * MIB)
    for number in range(300):
        scattered[number * 65536 : number * 65536 + 1024] = rng.randbytes(1024)
    return {
        "full": rng.randbytes(20 * MIB),
        "scattered": bytes(scattered),
        "empty": bytes(21 * MIB),
        "end": bytes(37 * MIB - 512) + rng.randbytes(512),
    }


def part(checks, run, arguments):
    """Runs a part of it all. What it does not catch itself has failed, and the other parts go on."""
    try:
        run(checks, arguments)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc(file=sys.stdout)
        checks.fail("it did not come to its end", repr(error))


def command_line(checks, arguments):
    """`az` takes long to start, so it runs beside the rest, with an emulator of its own."""
    # It waits 30 s between two polls, whatever it is told.
    with Emulator(arguments.emulator, polls=0) as emulator:
        azure_cli.run(checks, emulator, arguments.az)
    quick_start.run(checks, ROOT, arguments)


def everything_else(checks, arguments):
    contract.run(checks, ROOT, pathlib.Path(arguments.contract))
    peer = Peer(arguments.peer)
    signing.run(checks, peer)
    with Emulator(arguments.emulator) as emulator:
        os.environ["REQUESTS_CA_BUNDLE"] = emulator.ca
        azure_vm = AzureVm(arguments.azure_vm, emulator)
        sdk = python_sdk.Sdk(emulator)
        python_sdk.run(checks, emulator, sdk, azure_vm)
        formats.vhd(checks, sdk, azure_vm, contents())
        with Azurite(arguments.azurite) as azurite:
            azurite_run(checks, azurite, azure_vm, peer, contents())
        formats.configuration(checks, ROOT, azure_vm.documents, peer("document"))
        formats.digests(checks, ROOT, azure_vm.digests)
        checks.begin("Emulator")
        checks.check("nothing was asked that it does not model", emulator.unmodelled, [])
    static_file.run(checks, ROOT, ROOT / "target/emulator/azure-emulator")
    formats.java(checks, ROOT)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emulator", required=True, help="the program azure-emulator")
    parser.add_argument("--azure-vm", required=True, help="the program azure-vm")
    parser.add_argument("--peer", required=True, help="the example program peer")
    parser.add_argument("--az", required=True, help="the program az")
    parser.add_argument("--azurite", required=True, help="folder with Azurite and what it needs")
    parser.add_argument("--contract", required=True, help="folder with the sources of the SDK")
    arguments = parser.parse_args()
    # So that whatever was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # What the SDK logs of refusals that are asked for here.
    logging.getLogger("azure").setLevel(logging.CRITICAL)

    checks, beside = Checks(), Checks()
    az = threading.Thread(target=part, args=(beside, command_line, arguments))
    az.start()
    part(checks, everything_else, arguments)
    az.join()
    checks.add(beside)
    return checks.summary()


if __name__ == "__main__":
    sys.exit(main())
