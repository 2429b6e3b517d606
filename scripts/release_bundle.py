#!/usr/bin/env python3
"""Packs built functions into a release: a zip of each function and architecture, the template that deploys them, the
software bill of materials, and the SHA-256 sums of all files.

    release_bundle.py --lambda FOLDER --target FOLDER [--epoch SECONDS]
    release_bundle.py --check

`--lambda` is a folder with `<architecture>/<function>/bootstrap`, as `cargo lambda build` writes it. The release depends
only on these files, on the sources and on the time of the commit (`--epoch`): neither on the time of the build nor on
the machine's user, umask or folder. `--check` proves this with programs of this machine, without a build, and validates
the bill of materials against the schema of CycloneDX with the library in .venv-checkov.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
import zipfile

from packaged_template import packaged

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FUNCTIONS = ("api", "search", "replicator", "archiver", "maintenance")
# The Rust target and the machine number in the header of an ELF file.
ARCHITECTURES = {"x86_64": ("x86_64-unknown-linux-gnu", 62), "arm64": ("aarch64-unknown-linux-gnu", 183)}
# A zip has no earlier time.
FIRST_TIME = 315532800
# The limit of Lambda for code in a bucket, unpacked.
CODE_BYTES_MOST = 250 * 1024 * 1024


class Wrong(Exception):
    pass


def machine_of(code):
    """Returns the machine number of a program for Linux, or None if the bytes are not such a program."""
    is_elf = code[:6] == b"\x7fELF\x02\x01"
    return int.from_bytes(code[18:20], "little") if is_elf else None


def pack(code, target, epoch):
    """Writes the zip of a function: one executable file `bootstrap`, whose entry has nothing of this machine."""
    time = datetime.datetime.fromtimestamp(max(epoch, FIRST_TIME), datetime.UTC)
    entry = zipfile.ZipInfo("bootstrap", time.timetuple()[:6])
    entry.create_system = 3
    entry.external_attr = 0o100755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, code, compresslevel=9)


def pack_functions(folder, target, epoch):
    """Packs every function of every architecture in `folder`; returns the architectures."""
    architectures = sorted(set(os.listdir(folder)) & set(ARCHITECTURES))
    if not architectures:
        raise Wrong(f"{folder}: has none of the folders {', '.join(ARCHITECTURES)}: build the functions first")
    for architecture in architectures:
        for function in FUNCTIONS:
            path = os.path.join(folder, architecture, function, "bootstrap")
            if not os.path.exists(path):
                raise Wrong(f"{path}: is missing: build {function} for {architecture}")
            with open(path, "rb") as file:
                code = file.read()
            if machine_of(code) != ARCHITECTURES[architecture][1]:
                raise Wrong(f"{path}: is not a program for Linux on {architecture}")
            if len(code) > CODE_BYTES_MOST:
                raise Wrong(f"{path}: has {len(code)} bytes, Lambda accepts {CODE_BYTES_MOST}: build it without --debug")
            pack(code, os.path.join(target, f"{function}-{architecture}.zip"), epoch)
    return architectures


def cargo_metadata(architectures):
    """Returns cargo's description of the packages, and the resolved dependencies for these architectures."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    for architecture in architectures:
        command += ["--filter-platform", ARCHITECTURES[architecture][0]]
    # All features of the workspace, also those that only tests turn on: the list may be too long, never too short.
    described = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(described)


def dependencies_of(metadata, roots):
    """Returns the packages that the roots are built from, each with its direct dependencies. Packages that only tests
    or build scripts use are not part of a function.
    """
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, open_ids = {}, list(roots)
    while open_ids:
        package_id = open_ids.pop()
        if package_id in found:
            continue
        direct = [
            dependency["pkg"]
            for dependency in nodes[package_id]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        found[package_id] = sorted(direct)
        open_ids += direct
    return found


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    """Returns a package as a component of CycloneDX."""
    described = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("description"):
        described["description"] = " ".join(package["description"].split())
    if package.get("license"):
        # An old notation of crates.io for OR.
        described["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def bill_of_materials(architectures, epoch):
    """Returns the bill of materials of the functions, as CycloneDX 1.5."""
    metadata = cargo_metadata(architectures)
    packages = {package["id"]: package for package in metadata["packages"]}
    names = {f"millrace-{function}": function for function in FUNCTIONS}
    roots = [package_id for package_id in metadata["workspace_members"] if packages[package_id]["name"] in names]
    if len(roots) != len(FUNCTIONS):
        raise Wrong(f"the workspace has not all of the packages {', '.join(names)}")
    with open(os.path.join(ROOT, "Cargo.lock"), "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(each["name"], each["version"]): each["checksum"] for each in locked if "checksum" in each}
    found = dependencies_of(metadata, roots)
    components = []
    for package_id in sorted(found, key=lambda each: purl(packages[each])):
        described = component(packages[package_id], checksums)
        if package_id in roots:
            described["type"] = "application"
        components.append(described)
    version = packages[roots[0]]["version"]
    product = f"pkg:generic/millrace@{version}"
    references = {package_id: purl(packages[package_id]) for package_id in found}
    dependencies = [
        {"ref": references[package_id], "dependsOn": sorted({references[each] for each in direct})}
        for package_id, direct in sorted(found.items(), key=lambda each: references[each[0]])
    ]
    dependencies.insert(0, {"ref": product, "dependsOn": sorted(references[root] for root in roots)})
    content = json.dumps([components, dependencies], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # A name of the content, so that the same release has the same number.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, product + content)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": product,
                "name": "millrace",
                "version": version,
                "purl": product,
            },
        },
        "components": components,
        "dependencies": dependencies,
    }


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def bundle(folder, target, epoch):
    """Writes the whole release into the folder `target`, which is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    architectures = pack_functions(folder, target, epoch)
    with open(os.path.join(ROOT, "infra", "replication.yaml"), encoding="utf-8") as file:
        write_text(os.path.join(target, "replication-packaged.yaml"), packaged(file.read()))
    materials = bill_of_materials(architectures, epoch)
    write_text(os.path.join(target, "millrace.cdx.json"), json.dumps(materials, indent=1, ensure_ascii=False) + "\n")
    sums = []
    for name in sorted(os.listdir(target)):
        with open(os.path.join(target, name), "rb") as file:
            sums.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    write_text(os.path.join(target, "SHA256SUMS"), "".join(sums))
    return sums


VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1], encoding="utf-8").read())
sys.exit(str(error)[:2000] if error else 0)
"""


def validate_materials(path):
    """Validates a bill of materials against the schema."""
    python = os.path.join(ROOT, ".venv-checkov", "bin", "python")
    if subprocess.run([python, "-c", VALIDATE, path], check=False).returncode:
        raise Wrong(f"{path}: is not valid CycloneDX 1.5")


def read_all(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


def program(machine, size, seed):
    """Returns a placeholder for a function: the header of a program for this machine, and reproducible bytes."""
    header = bytearray(b"\x7fELF\x02\x01" + bytes(58))
    header[18:20] = machine.to_bytes(2, "little")
    words = (hashlib.sha256(f"{seed} {number % 64}".encode()).digest() for number in range(size // 32))
    return bytes(header) + b"".join(words)


def lay_out(folder, umask, modified):
    """Writes programs of both architectures, as a build with this umask at this time would."""
    former = os.umask(umask)
    try:
        for architecture, (_, machine) in ARCHITECTURES.items():
            for function in reversed(FUNCTIONS) if modified % 2 else FUNCTIONS:
                path = os.path.join(folder, architecture, function)
                os.makedirs(path)
                with open(os.path.join(path, "bootstrap"), "wb") as file:
                    file.write(program(machine, 1 << 20, f"{architecture} {function}"))
                os.utime(os.path.join(path, "bootstrap"), (modified, modified))
    finally:
        os.umask(former)


def refused(folder, target, expected):
    try:
        pack_functions(folder, target, 0)
    except Wrong as wrong:
        if expected in str(wrong):
            return
        raise Wrong(f"{wrong}: expected {expected}") from wrong
    raise Wrong(f"{folder} is packed, although a function {expected}")


def check():
    """Proves that a release depends only on the programs, the sources and the time of the commit."""
    with tempfile.TemporaryDirectory() as scratch:
        first, second = os.path.join(scratch, "a"), os.path.join(scratch, "another folder")
        lay_out(first, 0o022, 1_700_000_000)
        lay_out(second, 0o077, 1_800_000_001)
        targets = [os.path.join(scratch, "releases", name) for name in ("1", "2", "3")]
        for folder, target, epoch in zip((first, second, first), targets, (1_795_000_000, 1_795_000_000, 1_795_000_060)):
            bundle(folder, target, epoch)
        releases = [read_all(target) for target in targets]
        names = [f"{function}-{architecture}.zip" for function in FUNCTIONS for architecture in ARCHITECTURES]
        expected = sorted([*names, "replication-packaged.yaml", "millrace.cdx.json", "SHA256SUMS"])
        if list(releases[0]) != expected:
            raise Wrong(f"a release is {', '.join(releases[0])} and not {', '.join(expected)}")
        differing = [name for name in expected if releases[0][name] != releases[1][name]]
        if differing:
            raise Wrong(f"of two builds of one commit, these differ: {', '.join(differing)}")
        if releases[0]["SHA256SUMS"] == releases[2]["SHA256SUMS"]:
            raise Wrong("a release of another commit has the same sums")
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=targets[0], check=True)
        with zipfile.ZipFile(os.path.join(targets[0], "replicator-arm64.zip")) as archive:
            (entry,) = archive.infolist()
            if (entry.filename, entry.external_attr >> 16) != ("bootstrap", 0o100755):
                raise Wrong(f"a zip contains {entry}, which Lambda does not run")
            if machine_of(archive.read(entry)) != ARCHITECTURES["arm64"][1]:
                raise Wrong("a zip contains the program of another architecture")
        validate_materials(os.path.join(targets[0], "millrace.cdx.json"))
        materials = json.loads(releases[0]["millrace.cdx.json"])
        libraries = {each["name"] for each in materials["components"]}
        missing = {"aws-sdk-dynamodb", "lambda_runtime", "millrace-shared", "millrace-sinks"} - libraries
        foreign = {"millrace-tests", "millrace-local", "dynoxide-rs", "millrace"} & libraries
        if missing or foreign:
            raise Wrong(f"the bill of materials lacks {sorted(missing)}, and contains {sorted(foreign)}")
        shutil.copy(os.path.join(first, "arm64", "api", "bootstrap"), os.path.join(second, "x86_64", "api", "bootstrap"))
        refused(second, targets[1], "is not a program for Linux on x86_64")
        os.remove(os.path.join(second, "x86_64", "api", "bootstrap"))
        refused(second, targets[1], "is missing")
    print(f"{len(expected)} files of a release are the same for each build of a commit")
    print(f"{len(materials['components'])} components are in the bill of materials, which is valid CycloneDX 1.5")


def main():
    parser = argparse.ArgumentParser(description="Packs built functions into a release.")
    parser.add_argument("--lambda", dest="folder")
    parser.add_argument("--target")
    parser.add_argument("--epoch", type=int, default=int(os.environ.get("SOURCE_DATE_EPOCH", FIRST_TIME)))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        check()
    elif arguments.folder and arguments.target:
        print("".join(bundle(arguments.folder, arguments.target, arguments.epoch)), end="")
        validate_materials(os.path.join(arguments.target, "millrace.cdx.json"))
    else:
        parser.error("--check, or --lambda and --target are required")


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(str(wrong))
