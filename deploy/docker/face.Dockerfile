# Planner, bridge, page, `s2m3 ask`, `s2m3 secure`: everything but models. From the repository's root:
#   docker build -f deploy/docker/face.Dockerfile -t s2m3 .
FROM node:20-slim AS page
WORKDIR /src/dashboard
COPY dashboard/package.json dashboard/package-lock.json ./
RUN npm ci --ignore-scripts
COPY docs/schema /src/docs/schema
COPY dashboard ./
RUN npm run build

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY deploy/constraints.txt deploy/weights.txt deploy/
COPY schemas schemas
COPY broker broker
COPY planner planner
COPY agents agents
COPY s2m3 s2m3
COPY --from=page /src/s2m3/page s2m3/page
RUN python -m venv /opt/s2m3
RUN /opt/s2m3/bin/pip install --no-cache-dir -c deploy/constraints.txt '.[bridge,exact,secure]'

FROM python:3.11-slim
COPY --from=build /opt/s2m3 /opt/s2m3
ENV PATH=/opt/s2m3/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["s2m3"]
CMD ["planner"]
