# Load and run saved programs: TensorRT's lean runtime, no builder, no compiler.
# docker build -f containers/lean.Dockerfile -t trt_rt-lean .
# docker run --gpus all -v $PWD:/work trt_rt-lean serve.py
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip wheel --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
COPY constraints.txt /tmp/constraints.txt
# torch.compile alone needs triton, which is 0.7 GB.
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/*.whl)[lean]" \
    && pip uninstall --yes triton && rm -r /wheels
# PyTorch warns when it is imported without NumPy, which trt_rt does not need.
ENV PYTHONWARNINGS="ignore:Failed to initialize NumPy:UserWarning"
WORKDIR /work
ENTRYPOINT ["python"]
