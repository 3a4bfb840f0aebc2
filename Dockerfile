# Dependencies, exactly as locked; nothing is built and no install script runs.
FROM denoland/deno:debian-2.9.6 AS dependencies
WORKDIR /app
COPY deno.json deno.lock ./
COPY tests/std_testing tests/std_testing
RUN deno install --frozen

# The program without tests and tools, its module graph cached.
FROM denoland/deno:debian-2.9.6 AS program
WORKDIR /app
COPY --from=dependencies /app ./
COPY main.ts errors.ts LICENSE ./
COPY bench bench
COPY cli cli
COPY compress compress
COPY engine engine
COPY export export
COPY hub hub
COPY kernels kernels
COPY models models
COPY routes routes
COPY store store
COPY telemetry telemetry
COPY vision vision
RUN deno cache --frozen main.ts && mkdir /data && chown deno:deno /data

FROM denoland/deno:debian-2.9.6
WORKDIR /app
COPY --from=program /deno-dir /deno-dir
COPY --from=program --chown=root:root /app ./
COPY --from=program --chown=deno:deno /data /data
USER deno
# Others than this container reach it, so it starts with API keys alone: docker run -e OATMILL_API_KEYS=...
ENV OATMILL_DATA=/data OATMILL_HOST=0.0.0.0 PORT=8000
VOLUME /data
EXPOSE 8000
# The first start compresses the bundled model before it is ready; it is alive meanwhile.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["deno", "eval", "const r = await fetch('http://127.0.0.1:8000/healthz'); Deno.exit(r.ok ? 0 : 1)"]
CMD ["run", "--no-prompt", "--cached-only", \
  "--allow-net=0.0.0.0:8000", \
  "--allow-read=/app,/data", \
  "--allow-write=/data", \
  "--allow-env=OTEL_*,OATMILL_API_KEYS,OATMILL_DATA,OATMILL_HOST,OATMILL_HUB_URL,HF_TOKEN,PORT,NO_COLOR,FORCE_COLOR,CLICOLOR_FORCE", \
  "--allow-ffi=/app/node_modules,/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6,/lib64/libc.so.6", \
  "--allow-sys=systemMemoryInfo,statfs", \
  "main.ts", "serve"]
