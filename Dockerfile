# syntax=docker/dockerfile:1
# The program in an image, for a CPU or for CUDA:
#   docker build -t didi .                                       # CPU
#   docker build -t didi:cuda --build-arg TORCH=cu126 .          # CUDA; run it with --gpus all
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" didi distill domain=toy run_dir=run
# The page: docker build -t didi:demo --build-arg EXTRAS=demo . && docker run --rm -p 127.0.0.1:7860:7860 didi:demo demo host=0.0.0.0
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# The index of PyTorch's wheels: cpu, or that of a version of CUDA (cu126, cu128 ...). The wheels bring CUDA's libraries along.
ARG TORCH=cpu
# Optional features: xformers (CUDA), novelty, frame, demo ...; several with commas between them.
ARG EXTRAS=frame

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HF_HOME=/work/.cache/huggingface XDG_CACHE_HOME=/work/.cache
RUN pip install "torch>=2.11,<2.14" --index-url "https://download.pytorch.org/whl/${TORCH}"

COPY pyproject.toml README.md LICENSE /src/
COPY didi_core /src/didi_core
COPY domains /src/domains
COPY configs /src/configs
RUN pip install "/src[${EXTRAS}]" && rm -rf /src && didi --version

RUN useradd --create-home didi && mkdir /work && chown didi /work
USER didi
WORKDIR /work
ENTRYPOINT ["didi"]
CMD ["--help"]
