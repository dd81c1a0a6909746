# Images that a registry would give: for builds, and Prometheus. Context: a folder with wheels/.
ARG BASE
FROM ${BASE} AS apt
RUN apt-get update

FROM apt AS build
RUN apt-get install --yes --no-install-recommends g++ libc6-dev python3-dev
COPY wheels /wheels
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels

FROM apt AS prometheus
RUN apt-get install --yes --no-install-recommends prometheus \
    && install --directory --owner=nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
