# An image for each program: small, not root, with a health check.
#
#   docker build --target registry --tag octoserve-registry .
#   docker build --tag octoserve .
#
# OCTOSERVE_… variables configure both, as anywhere; their data is in /data, for a volume.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Alone, so that a change of the sources does not install it again.
COPY tests/setup/install.sh tests/setup/
RUN tests/setup/install.sh build
COPY . .
# The cargo profile: `dev` builds in a fraction of the time what is slower to run.
ARG PROFILE=release
# What `build_info` and --version say of the sources, such as `git rev-parse --short=12 HEAD` prints:
# the history is not in the image.
ARG REVISION=unknown
RUN OCTOSERVE_REVISION=$REVISION cargo build --locked --profile $PROFILE \
        --package octoserve-proxy --package octoserve-registry \
        --bin octoserve --bin octoserve-registry \
    && install -D -t /programs $(find target -maxdepth 2 -type f -perm /1 -name 'octoserve*')

FROM debian:bookworm-slim AS runtime
# A new volume takes the owner of the folder that it covers.
RUN install -d -o 65532 -g 65532 /data
# Where the default of both, ./data, is that folder.
WORKDIR /
USER 65532:65532
# Everywhere within the container: what of it others reach is for `--publish` to say.
ENV OCTOSERVE_LISTEN=0.0.0.0:5000 OCTOSERVE_METRICS_LISTEN=0.0.0.0:5001
EXPOSE 5000 5001

FROM runtime AS registry
COPY --from=build /programs/octoserve-registry /usr/bin/
HEALTHCHECK --interval=5s --start-period=30s CMD ["octoserve-registry", "health"]
ENTRYPOINT ["octoserve-registry"]

FROM runtime AS proxy
COPY --from=build /programs/octoserve /usr/bin/
HEALTHCHECK --interval=5s --start-period=30s CMD ["octoserve", "health"]
ENTRYPOINT ["octoserve"]
