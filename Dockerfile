# docker build -t m3o-ingress .
# docker run -p 8080:8080 -e M3O_API_TOKEN -v m3o-data:/data --name ingress m3o-ingress
# Health and metrics are on its loopback address only, for whoever shares its network:
# docker run --rm --network container:ingress curlimages/curl http://127.0.0.1:8090/readyz

FROM rust:1.95-trixie AS builder
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --bin m3o-ingress
# The folder of the platform's store, to be owned by the user below.
RUN mkdir /empty

FROM debian:trixie-slim
# The authorities that https backends are checked by.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="m3o-ingress" \
      org.opencontainers.image.description="The single front door of an app platform: apps, functions, an API, short links and verification links" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /src/target/dist/m3o-ingress /usr/local/bin/m3o-ingress
COPY --from=builder /src/config/ingress.toml /etc/m3o-ingress/ingress.toml
COPY --from=builder /src/LICENSE /usr/share/doc/m3o-ingress/LICENSE
COPY --from=builder --chown=65532:65532 /empty /data
# Relative paths, such as that of the store, lead into the volume.
WORKDIR /data
VOLUME /data
ENV M3O_INGRESS_CONFIG=/etc/m3o-ingress/ingress.toml
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# Over the control socket where the file names one, else at the admin address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/local/bin/m3o-ingress", "health"]
ENTRYPOINT ["/usr/local/bin/m3o-ingress"]
