#!/bin/sh
# Makes the base images of Dockerfile and docker-compose.yml, under the names that they use, in the
# daemon of DOCKER_HOST, without any public registry.
#
#   images.sh DEBIAN RUST PROMETHEUS TARGET
#
# TARGET is cargo's directory of the test build. The built dependencies go into the image RUST, so that
# only our own crates are built in the container.
set -eu
debian=$1 rust=$2 prometheus=$3 target=$(realpath "$4")
cd "$(dirname "$0")/../.."
base=target/tools/debian
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tar -C $base -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null

# The machine's C compiler: the files of its packages and their dependencies. The paths are those of the
# base image, where /lib and similar directories are links into /usr.
apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances gcc libc6-dev make cmake | grep '^[a-z0-9]' | sort -u |
    xargs dpkg-query --listfiles 2>/dev/null | sed 's#^/\(bin\|sbin\|lib\|lib64\)/#/usr/\1/#' |
    grep -v '^/usr/share/\(doc\|info\|locale\|man\)/' | sort -u |
    while read -r file; do
        if [ -L "$file" ] || [ -f "$file" ]; then echo "${file#/}"; fi
    done >"$work/compiler"
echo etc/alternatives >>"$work/compiler"
# A program's usual name may be a link that no package owns.
for program in cc c++; do
    if [ -L /usr/bin/$program ]; then echo usr/bin/$program >>"$work/compiler"; fi
done

# The base without files that come from the machine: docker refuses a path that occurs twice.
(cd $base && find . -mindepth 1 \( -path ./dev -o -path ./etc/alternatives \) -prune -o -print) |
    sed 's#^\./##' | grep -vxFf "$work/compiler" >"$work/base"

# rustc and cargo, without the rest of the toolchain.
sysroot=$(realpath "$(rustc --print sysroot)")
for part in bin/rustc bin/cargo lib; do
    echo "${sysroot#/}/$part"
done >"$work/toolchain"

# The sources of the dependencies, where cargo looks for them.
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

# The built dependencies, without our own crates.
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
