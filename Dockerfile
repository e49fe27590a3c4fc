# The service, the worker and the migrations in one image: `seqstream` and a command.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /build && python -m venv --without-pip /opt/seqstream
# Dependencies first, for the layer cache: they change less often than the code.
COPY requirements/build.lock requirements/serve.lock requirements/
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock \
    && /build/bin/pip --python /opt/seqstream/bin/python install --no-cache-dir \
        --only-binary :all: --require-hashes -r requirements/serve.lock
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY service service
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/seqstream/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.11-slim
# No installer or build tool stays, and the user cannot log in.
RUN pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
    && groupadd --system --gid 10001 seqstream \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin seqstream
COPY --from=build /opt/seqstream /opt/seqstream
# Writes only to /tmp (with `--workers`, metrics), so the root file system may be read-only.
ENV PATH=/opt/seqstream/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# SIGTERM drains the streams, which takes up to 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["seqstream"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
