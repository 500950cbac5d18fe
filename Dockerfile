FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# PyPI's torch brings CUDA (about 5 GB). For a CPU-only image, build with
# --build-arg PIP_EXTRA_INDEX_URL=<the index of PyTorch's CPU wheels>.
ARG PIP_EXTRA_INDEX_URL

# Before the code: editing code then doesn't install everything anew.
COPY requirements.txt .
RUN pip install --requirement requirements.txt

# A named volume takes the owner of the folder that it covers, so var/ must exist and belong to the user.
RUN useradd --uid 10001 --no-create-home lookalike && install --directory --owner lookalike var
COPY . .
USER lookalike

EXPOSE 8000
CMD ["gunicorn", "--config", "python:web.gunicorn_config", "web.app:create_app()"]
