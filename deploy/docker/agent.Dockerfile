# An agent with torch and the shipped weights. From the repository's root:
#   docker build -f deploy/docker/agent.Dockerfile -t s2m3-agent .
# torch is a build for the CPU; the build says which. For NVIDIA devices: --build-arg TORCH_BUILD=cuda. Where the CPU
# builds lie on an index of your own: --build-arg TORCH_INDEX=<it>. An agent never shows the page: it is left out.
FROM python:3.11-slim AS build
ARG TORCH_BUILD=cpu
ARG TORCH_INDEX
ARG S2M3_WITHOUT_PAGE=1
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY deploy/constraints.txt deploy/weights.txt deploy/
COPY schemas schemas
COPY broker broker
COPY planner planner
COPY agents agents
COPY s2m3 s2m3
RUN python -m venv /opt/s2m3
RUN /opt/s2m3/bin/pip install --no-cache-dir -c deploy/constraints.txt .
RUN /opt/s2m3/bin/python -m s2m3.torch_build
RUN /opt/s2m3/bin/pip install --no-cache-dir -c deploy/constraints.txt 's2m3[agent]'
RUN /opt/s2m3/bin/s2m3 weights

FROM python:3.11-slim
COPY --from=build /opt/s2m3 /opt/s2m3
ENV PATH=/opt/s2m3/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["s2m3"]
CMD ["agent"]
