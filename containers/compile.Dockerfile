# Compile and run: TensorRT-RTX's builder, and everything that trt_rt.compile needs. With --entrypoint trt-rt, the
# command `build` needs no GPU. A program needs the GPU that it is compiled for.
# docker build -f containers/compile.Dockerfile -t trt_rt-compile .
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip wheel --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/*.whl)[rtx,compile]" && rm -r /wheels
# The compilation cache: mount a volume here to keep it.
ENV XDG_CACHE_HOME=/cache
WORKDIR /work
# docker run --gpus all -v $PWD:/work trt_rt-compile model:make --inputs 1x3x224x224 -o model.pt2
ENTRYPOINT ["trt-rt", "compile"]
