#!/bin/sh
# What the Debian package and the archives have in common, below a directory: man pages, completions and
# schemas, made by the programs themselves, and the documentation with all that its links lead to.
#
#   packaging/stage.sh PROGRAMS SHARE
set -eu
programs=$(realpath "$1")
install -d "$2"
share=$(realpath "$2")
cd "$(dirname "$0")/.."

install -d "$share/man/man1" "$share/man/man5" "$share/bash-completion/completions" "$share/zsh/vendor-completions" \
    "$share/fish/vendor_completions.d" "$share/octoserve" "$share/doc/octoserve/packaging"
for program in octoserve octoserve-registry; do
    "$programs/$program" man --dir "$share/man/man1"
    mv "$share/man/man1/$program.yaml.5" "$share/man/man5/"
    "$programs/$program" schema >"$share/octoserve/$program.schema.json"
    "$programs/$program" completions bash >"$share/bash-completion/completions/$program"
    "$programs/$program" completions zsh >"$share/zsh/vendor-completions/_$program"
    "$programs/$program" completions fish >"$share/fish/vendor_completions.d/$program.fish"
done
# -L: the chart links to the mixin, and is to have copies.
cp -RL examples "$share/doc/octoserve/examples"
cp -R docs "$share/doc/octoserve/docs"
cp -R packaging/systemd "$share/doc/octoserve/packaging/systemd"
cp README.md LICENSE CHANGELOG.md CONTRIBUTING.md SECURITY.md docker-compose.yml "$share/doc/octoserve/"
find "$share" -type d -exec chmod 755 {} +
find "$share" -type f -exec chmod 644 {} +
find "$share/doc" -name '*.sh' -exec chmod 755 {} +
