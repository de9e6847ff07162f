# A small image for each program, without root, with a health check.
#
#   docker build --target registry --tag octoserve-registry .
#   docker build --tag octoserve .
#
# OCTOSERVE_… variables configure both; their data is in /data, which should be a volume.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Copied alone, so that a change of the sources does not repeat the installation.
COPY tests/setup/install.sh tests/setup/
RUN tests/setup/install.sh build
COPY . .
# The cargo profile: `dev` builds much faster, and runs slower.
ARG PROFILE=release
# The revision for `build_info` and --version, such as the output of `git rev-parse --short=12 HEAD`:
# the build has no git history. docker-compose passes an empty one where its variable is not set.
ARG REVISION=unknown
RUN OCTOSERVE_REVISION=${REVISION:-unknown} cargo build --locked --profile $PROFILE \
        --package octoserve-proxy --package octoserve-registry \
        --bin octoserve --bin octoserve-registry \
    && install -D -t /programs $(find target -maxdepth 2 -type f -perm /1 -name 'octoserve*')

FROM debian:bookworm-slim AS runtime
LABEL org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.vendor="The octoserve authors" \
      org.opencontainers.image.base.name=debian:bookworm-slim
# A new volume inherits the owner of the directory that it covers.
RUN install -d -o 65532 -g 65532 /data
# From here, ./data, the default of both programs, is /data.
WORKDIR /
USER 65532:65532
# On all addresses of the container: `--publish` decides what is reachable from outside.
ENV OCTOSERVE_LISTEN=0.0.0.0:5000 OCTOSERVE_METRICS_LISTEN=0.0.0.0:5001
EXPOSE 5000 5001

FROM runtime AS registry
COPY --from=build /programs/octoserve-registry /usr/bin/
HEALTHCHECK --interval=5s --start-period=30s CMD ["octoserve-registry", "health"]
ENTRYPOINT ["octoserve-registry"]
# Last, and again in this stage: a new revision repeats no other step.
ARG REVISION=unknown
LABEL org.opencontainers.image.title=octoserve-registry \
      org.opencontainers.image.description="A complete OCI registry on plain files" \
      org.opencontainers.image.revision=${REVISION:-unknown}

FROM runtime AS proxy
COPY --from=build /programs/octoserve /usr/bin/
HEALTHCHECK --interval=5s --start-period=30s CMD ["octoserve", "health"]
ENTRYPOINT ["octoserve"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title=octoserve \
      org.opencontainers.image.description="A metrics proxy for container registries" \
      org.opencontainers.image.revision=${REVISION:-unknown}
