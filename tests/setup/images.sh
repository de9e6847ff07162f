#!/bin/sh
# Makes the images that Dockerfile and docker-compose.yml begin with, under the names that they use,
# in the daemon that DOCKER_HOST names: no registry of others is asked for anything.
#
#   images.sh DEBIAN RUST PROMETHEUS TARGET
#
# TARGET is the folder where cargo built the tests. What it built of our dependencies goes into the
# image RUST, so that only what is ours is built in there.
set -eu
debian=$1 rust=$2 prometheus=$3 target=$(realpath "$4")
cd "$(dirname "$0")/../.."
base=target/tools/debian
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tar -C $base -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null

# The machine's own compiler: the files of its packages, and of whatever they need. Their names are
# as in the base, where /lib and its like are links into /usr.
apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances gcc libc6-dev make cmake | grep '^[a-z0-9]' | sort -u |
    xargs dpkg-query --listfiles 2>/dev/null | sed 's#^/\(bin\|sbin\|lib\|lib64\)/#/usr/\1/#' |
    grep -v '^/usr/share/\(doc\|info\|locale\|man\)/' | sort -u |
    while read -r file; do
        if [ -L "$file" ] || [ -f "$file" ]; then echo "${file#/}"; fi
    done >"$work/compiler"
echo etc/alternatives >>"$work/compiler"
# A package need not own the names by which it is called.
for program in cc c++; do
    if [ -L /usr/bin/$program ]; then echo usr/bin/$program >>"$work/compiler"; fi
done

# The base but for what the machine has of the same name: docker takes no name twice.
(cd $base && find . -mindepth 1 \( -path ./dev -o -path ./etc/alternatives \) -prune -o -print) |
    sed 's#^\./##' | grep -vxFf "$work/compiler" >"$work/base"

# rustc and cargo without the rest of their toolchain.
sysroot=$(realpath "$(rustc --print sysroot)")
for part in bin/rustc bin/cargo lib; do
    echo "${sysroot#/}/$part"
done >"$work/toolchain"

# The sources of what we depend on, where cargo looks for them.
home=$(realpath "${CARGO_HOME:-$HOME/.cargo}")
{
    for index in "$home"/registry/index/*; do echo "${index#/}"; done
    sed -n 's/^name = "\(.*\)"$/\1/p; s/^version = "\(.*\)"$/\1/p' Cargo.lock | paste -d - - - |
        while read -r crate; do
            for path in "$home"/registry/cache/*/"$crate.crate" "$home"/registry/src/*/"$crate"; do
                if [ -e "$path" ]; then echo "${path#/}"; fi
            done
        done
} >"$work/sources"

# What was built of them; nothing of ours.
find "$target/.fingerprint" "$target/build" -mindepth 1 -maxdepth 1 ! -name 'octoserve-*' >"$work/dependencies"
find "$target/deps" -maxdepth 1 -type f \( -name '*.rlib' -o -name '*.rmeta' -o -name '*.so' -o -name '*.d' \) \
    ! -name 'octoserve*' ! -name 'libregistry-*' ! -name 'libproxy-*' ! -name 'libharness-*' \
    >>"$work/dependencies"
sed -i 's#^/##' "$work/dependencies"

tar -c --transform "s#^${target#/}/#src/target/debug/#" --no-recursion -C $base -T "$work/base" \
    --recursion -C / -T "$work/compiler" -T "$work/toolchain" -T "$work/sources" -T "$work/dependencies" |
    docker import --change "ENV CARGO_HOME=$home CARGO_NET_OFFLINE=true PATH=$sysroot/bin:/usr/bin:/bin" \
        - "$rust" >/dev/null

cp "$(command -v prometheus)" "$(command -v busybox)" "$work"
cat >"$work/Dockerfile" <<END
FROM $debian
COPY prometheus /bin/prometheus
COPY busybox /bin/wget
RUN install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
END
tar -C "$work" -c Dockerfile prometheus busybox | docker build --quiet --tag "$prometheus" - >/dev/null
