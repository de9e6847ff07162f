#!/bin/sh
# Makes what a release consists of, of the programs in a directory: an archive, the Debian package, a list
# of all dependencies (CycloneDX), and the checksums of these. The same programs make the same files.
#
#   packaging/dist.sh PROGRAMS OUTPUT
set -eu
programs=$(realpath "$1")
install -d "$2"
output=$(realpath "$2")
cd "$(dirname "$0")/.."
umask 022

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
name=octoserve-$version-$target
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root=$work/$name
install -d "$root/bin"
install -s "$programs/octoserve" "$programs/octoserve-registry" "$root/bin/"
packaging/stage.sh "$programs" "$root/share"
mv "$root/share/doc/octoserve/"* "$root/"
rmdir "$root/share/doc/octoserve" "$root/share/doc"
# The archive has the schemas in docs/reference.
rm -r "$root/share/octoserve"
tar --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw --mtime="@$SOURCE_DATE_EPOCH" \
    --directory "$work" --create "$name" | gzip -n "-${LEVEL:-9}" >"$output/$name.tar.gz"

packaging/deb.sh "$programs" "$output" >"$work/deb"
python3 packaging/sbom.py "$target" >"$output/octoserve-$version.cdx.json"
cd "$output"
sha256sum "$name.tar.gz" "$(basename "$(cat "$work/deb")")" "octoserve-$version.cdx.json" >SHA256SUMS
cat SHA256SUMS
