# The MCP server on stdio; docs/install.md says how a client starts it and where its watchdog runs.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY prompts prompts
COPY clore_mcp clore_mcp
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="clore-mcp" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT" \
      io.modelcontextprotocol.server.name="io.github.clore-mcp/clore-mcp"
COPY --from=build /dist /dist
RUN pip install --no-cache-dir /dist/clore_mcp-*.whl
RUN useradd --uid 1000 --create-home clore && install -d -m 700 -o clore -g clore /state
USER clore
# A watchdog in this container would end with it, and orders would have no end. `off` makes every question say so.
ENV CLORE_STATE_DIR=/state CLORE_WATCHDOG=off
VOLUME /state
ENTRYPOINT ["clore-mcp"]
