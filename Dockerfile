# syntax=docker/dockerfile:1
# The operator's image, for a release: the binary, the static agent that runs in
# the builders' containers, and Git for `prepare`. The local test cluster does not
# use this file: it has no registry to take base images from, so `make up` puts
# the same image together from the host's own files (tests/cluster/lib/images.sh).
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
ENV SQLX_OFFLINE=true
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p image-factory \
    && cargo rustc --release --locked -p image-factory-agent --bin image-factory-agent -- -C target-feature=+crt-static \
    && install -D -t /out target/release/image-factory target/release/image-factory-agent

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 nonroot \
    && useradd --uid 65532 --gid 65532 --create-home --shell /usr/sbin/nologin nonroot
COPY --from=build /out/ /usr/local/bin/
ENV HOME=/home/nonroot
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/image-factory"]
