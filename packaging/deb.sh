#!/bin/sh
# Makes the Debian package of the programs in a directory, and prints its path. It needs dpkg and binutils,
# no other tool, and the same programs make the same package.
#
#   packaging/deb.sh PROGRAMS OUTPUT
set -eu
programs=$(realpath "$1")
install -d "$2"
output=$(realpath "$2")
cd "$(dirname "$0")/.."
umask 022

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

install -d "$root/usr/bin"
install -s "$programs/octoserve" "$programs/octoserve-registry" "$root/usr/bin/"
packaging/stage.sh "$programs" "$root/usr/share"
# Debian has the licence itself, and wants man pages compressed. The README links to it.
install -m 644 packaging/debian/copyright "$root/usr/share/doc/octoserve/copyright"
ln -sf copyright "$root/usr/share/doc/octoserve/LICENSE"
gzip -9n "$root"/usr/share/man/man1/* "$root"/usr/share/man/man5/*
install -D -m 644 -t "$root/usr/lib/systemd/system" packaging/systemd/*.service packaging/systemd/*.socket
install -D -m 644 packaging/systemd/octoserve.sysusers "$root/usr/lib/sysusers.d/octoserve.conf"
install -d "$root/etc/octoserve"
install -m 640 packaging/octoserve.yaml packaging/registry.yaml "$root/etc/octoserve/"

# The newest version of libc whose symbols the programs use.
glibc=$(objdump -p "$root"/usr/bin/* | sed -n 's/.* GLIBC_\([0-9.]*\)$/\1/p' | sort -uV | tail -n 1)
install -d "$root/DEBIAN"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@GLIBC@/$glibc/" \
    -e "s/@SIZE@/$(du -sk --exclude DEBIAN "$root" | cut -f 1)/" \
    packaging/debian/control >"$root/DEBIAN/control"
install -m 644 packaging/debian/conffiles "$root/DEBIAN/"
install -m 755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$root/DEBIAN/"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

package=$output/octoserve_${version}_$architecture.deb
dpkg-deb --root-owner-group ${COMPRESSION:--Zxz} --build "$root" "$package" >/dev/null
echo "$package"
