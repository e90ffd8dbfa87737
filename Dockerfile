# One image for migrate, doctor and worker. Build: docker build -t streamapp .
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

COPY migrations ./migrations
COPY streamapp ./streamapp

RUN useradd --system --uid 10001 streamapp \
    && mkdir -p /var/lib/streamapp \
    && chown streamapp /var/lib/streamapp
USER streamapp
ENV STREAMAPP_DATA_DIR=/var/lib/streamapp
VOLUME /var/lib/streamapp
EXPOSE 6066

HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/health/live', timeout=2)"]
ENTRYPOINT ["python", "-m", "streamapp"]
CMD ["worker"]
