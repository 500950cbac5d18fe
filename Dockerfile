FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# PyPI's torch brings CUDA (about 5 GB). A CPU-only image needs a lock of its own, since its wheels have other hashes:
# UV_TORCH_BACKEND=cpu make lock LOCK=requirements-cpu.lock, then build with --build-arg LOCK=requirements-cpu.lock
# --build-arg PIP_EXTRA_INDEX_URL=<the index of PyTorch's CPU wheels>.
ARG LOCK=requirements.lock
ARG PIP_EXTRA_INDEX_URL

# Before the code: editing code then doesn't install everything anew. A file that is not the one that was locked is
# refused, and nothing is built from source, so no code of a package runs here.
COPY ${LOCK} .
RUN pip install --require-hashes --only-binary :all: --requirement ${LOCK}

# A named volume takes the owner of the folder that it covers, so var/ must exist and belong to the user.
RUN useradd --uid 10001 --no-create-home lookalike && install --directory --owner lookalike var
COPY . .
USER lookalike
# The user has no home. What runs writes to var/ and /tmp only, so all else may be read-only, as in docker-compose.yml.
ENV HOME=/tmp

EXPOSE 8000
CMD ["gunicorn", "--config", "python:web.gunicorn_config", "web.app:create_app()"]
