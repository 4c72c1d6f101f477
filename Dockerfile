# One image for the four services, their workers, the migration job and the command line.
# Whoever needs the very same bytes each time gives a digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
COPY requirements/runtime.txt /tmp/runtime.txt
RUN python -m venv /opt/farebox \
 && /opt/farebox/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: --requirement /tmp/runtime.txt

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin farebox \
 && install --directory --owner=farebox --group=farebox /var/lib/farebox
COPY --from=packages /opt/farebox /opt/farebox
WORKDIR /app
COPY pyproject.toml run_migration.py migration_utils.py ./
COPY shared shared
COPY services services
COPY migrations migrations
COPY cli cli
# Only the stand-in for Stripe is used here; PostgreSQL and Kafka have images of their own.
COPY embedded embedded
# The root file system may be read-only: nothing is written beside the code.
ENV PATH=/opt/farebox/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
CMD ["python", "-m", "cli", "--help"]
