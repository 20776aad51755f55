"""Our own programs: `azure-vm`, and `peer` for what it has no command for."""

import json
import os
import pathlib
import subprocess

import emulator as azure


class Ended(RuntimeError):
    """A command that did not succeed, with its report."""

    def __init__(self, done):
        self.report = json.loads(done.stdout)
        super().__init__(f"azure-vm {self.report['command']} ended with {done.returncode}: {done.stdout} {done.stderr}")


class AzureVm:
    """`azure-vm` as the principal of the emulator. Keeps every document that it has saved."""

    def __init__(self, program, emulator):
        self.program = program
        self.documents = []
        self.digests = []
        self.ca = emulator.ca
        self.access = [
            "--tenant-id", azure.TENANT, "--subscription-id", azure.SUBSCRIPTION, "--application-id", azure.CLIENT,
            "--arm-endpoint", emulator.https, "--authority", emulator.https, "--ca-file", emulator.ca, "--allow-http",
        ]

    def __call__(self, *arguments):
        return self._run([*arguments, *self.access], AZURE_VM_APPLICATION_SECRET=azure.SECRET)

    def backup(self, folder, vm, *arguments):
        """Saves a VM; its files by the last part of their names: `conf`, `osdisk`, `0`."""
        self("backup", "--to", folder, "--vm", vm, *arguments)
        files = {path.name.split("_", 1)[-1]: path for path in pathlib.Path(folder).rglob("*_*")}
        self.documents.append(files["conf"].read_bytes())
        self.digests.append(files["digests"].read_bytes())
        return files

    def pull(self, sas, file, base=None, base_file=None):
        more = {} if base is None else {"AZURE_VM_BASE_SAS": base}
        options = ["--base-file", base_file] if base_file else []
        return self._run(["pull", "--to", file, *options, "--ca-file", self.ca, "--allow-http"], AZURE_VM_SAS=sas, **more)

    def push(self, sas, file):
        return self._run(["push", "--from", file, "--ca-file", self.ca, "--allow-http"], AZURE_VM_SAS=sas)

    def _run(self, arguments, **environment):
        done = subprocess.run(
            [self.program, "--json", *map(str, arguments)],
            env=dict(os.environ, **environment), capture_output=True, text=True, check=False, timeout=300,
        )
        if done.returncode:
            raise Ended(done)
        return json.loads(done.stdout)


class Peer:
    """The example program of that name."""

    def __init__(self, program):
        self.program = program

    def __call__(self, task, **more):
        done = subprocess.run(
            [self.program], input=json.dumps({"task": task, **more}), capture_output=True, text=True, check=False, timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"peer ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)
