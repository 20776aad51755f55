"""Clients that are not ours against the emulator, and ours against servers and formats that are not ours."""

import argparse
import pathlib
import sys

import azure_cli
import contract
import python_sdk
from checks import Checks
from emulator import Emulator


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emulator", required=True, help="the program azure-emulator")
    parser.add_argument("--azure-vm", required=True, help="the program azure-vm")
    parser.add_argument("--az", required=True, help="the program az")
    parser.add_argument("--contract", required=True, help="folder with the sources of the SDK")
    arguments = parser.parse_args()
    checks = Checks()
    contract.run(checks, pathlib.Path(__file__).parents[2], pathlib.Path(arguments.contract))
    with Emulator(arguments.emulator) as emulator:
        python_sdk.run(checks, emulator, arguments.azure_vm)
    # `az` waits 30 s between two polls, whatever it is told.
    with Emulator(arguments.emulator, polls=0) as emulator:
        azure_cli.run(checks, emulator, arguments.az)
    return checks.summary()


if __name__ == "__main__":
    sys.exit(main())
