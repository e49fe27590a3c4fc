# The service, the worker and the migrations in one image: `seqstream` and a command.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/seqstream
ENV PATH=/opt/seqstream/bin:$PATH
# The dependencies first: they change less often than the code.
COPY requirements/run.lock requirements/run.lock
RUN pip install --no-cache-dir --require-hashes -r requirements/run.lock
COPY pyproject.toml README.md ./
COPY streams streams
COPY service service
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --system --uid 10001 seqstream
COPY --from=build /opt/seqstream /opt/seqstream
ENV PATH=/opt/seqstream/bin:$PATH PYTHONUNBUFFERED=1
USER seqstream
WORKDIR /tmp
EXPOSE 8000
# SIGTERM drains the streams; give it 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["seqstream"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
