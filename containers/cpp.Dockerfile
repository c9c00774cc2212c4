# C++: a program of examples/cpp with libtorch, TensorRT's lean runtime and trt_rt's C++ runtime, and no Python.
# docker build -f containers/cpp.Dockerfile -t trt_rt-cpp .
# docker run --gpus all -v $PWD/app:/app trt_rt-cpp /app
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake g++ make && rm -rf /var/lib/apt/lists/*
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY . /src
WORKDIR /src
# CMake's part of a PyTorch for CUDA wants CUDA's toolkit. The program builds with a PyTorch for CPUs of the same version,
# and runs with the libraries of the one for CUDA.
RUN python -m venv /cpu \
    && /cpu/bin/pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu .
WORKDIR /
# hadolint ignore=SC2016
RUN cmake -S /src/examples/cpp -B /build -DCMAKE_BUILD_TYPE=Release -DCMAKE_BUILD_RPATH='$ORIGIN' \
      -DCMAKE_PREFIX_PATH="$(/cpu/bin/python -c 'import torch; print(torch.utils.cmake_prefix_path)');$(/cpu/bin/python -m trt_rt.deploy --cmakedir)" \
    && cmake --build /build --target aoti
# What the program loads, in one folder: PyTorch's libraries, the CUDA libraries that they need, and TensorRT's.
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[lean]'
RUN mkdir /app && cp /build/aoti "$(python -m trt_rt.deploy --library)" /app/ \
    && site="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && cp "$site"/torch/lib/*.so* /app/ && rm /app/libtorch_python.so /app/libshm.so \
    && find "$site"/nvidia "$site"/tensorrt_lean_libs -name '*.so*' -exec cp {} /app/ \;

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libstdc++6 && rm -rf /var/lib/apt/lists/*
COPY --from=build /app /opt/trt_rt
ENV LD_LIBRARY_PATH=/opt/trt_rt TRT_RT_TENSORRT_LIBDIR=/opt/trt_rt
ENTRYPOINT ["/opt/trt_rt/aoti"]
