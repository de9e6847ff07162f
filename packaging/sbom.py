"""Prints what both programs are made of, as CycloneDX 1.5: each crate with its version, licence and
checksum, and which needs which. Crates that only build scripts, macros or tests use are left out.

    python3 packaging/sbom.py TARGET    # such as x86_64-unknown-linux-gnu
"""

import json
import subprocess
import sys
import tomllib

PROGRAMS = ["octoserve-proxy", "octoserve-registry"]

metadata = json.loads(
    subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", sys.argv[1]],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
)
with open("Cargo.lock", "rb") as lock:
    checksums = {
        (package["name"], package["version"]): package.get("checksum")
        for package in tomllib.load(lock)["package"]
    }
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def needed(identifier):
    """What a crate is linked with."""
    found = []
    for dependency in nodes[identifier]["deps"]:
        kinds = [kind["kind"] for kind in dependency["dep_kinds"]]
        if None in kinds and not is_macro(packages[dependency["pkg"]]):
            found.append(dependency["pkg"])
    return found


def reference(identifier):
    package = packages[identifier]
    return f"pkg:cargo/{package['name']}@{package['version']}"


roots = [package["id"] for package in metadata["packages"] if package["name"] in PROGRAMS]
linked, waiting = set(), list(roots)
while waiting:
    identifier = waiting.pop()
    if identifier not in linked:
        linked.add(identifier)
        waiting += needed(identifier)


def component(identifier):
    package = packages[identifier]
    described = {
        "type": "library",
        "bom-ref": reference(identifier),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(identifier),
    }
    if package.get("license"):
        # Old crates separate licences by a slash, which is no SPDX expression.
        described["licenses"] = [{"expression": " ".join(package["license"].replace("/", " OR ").split())}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


version = packages[roots[0]]["version"]
program = f"octoserve@{version}"
print(
    json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "application",
                    "bom-ref": program,
                    "name": "octoserve",
                    "version": version,
                    "licenses": [{"expression": "Apache-2.0"}],
                }
            },
            "components": [component(identifier) for identifier in sorted(linked, key=reference)],
            "dependencies": [{"ref": program, "dependsOn": sorted(map(reference, roots))}]
            + [
                {"ref": reference(identifier), "dependsOn": sorted(map(reference, needed(identifier)))}
                for identifier in sorted(linked, key=reference)
            ],
        },
        indent=1,
    )
)
