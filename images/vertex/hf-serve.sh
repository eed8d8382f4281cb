#!/bin/sh
# The base image's own server with the handler of handlers/vertex: the command of a model on Vertex AI. The server comes
# from the base's environment, all else (torch, vLLM) from /opt/venv, which comes first; both have one Python.
set -eu
PYTHONPATH=$(echo /opt/venv/lib/python3*/site-packages):/opt/lorafleet/model
export PYTHONPATH
export HF_TASK=custom HF_TRUST_REMOTE_CODE=1 HF_MODEL_DIR=/opt/lorafleet/model LORAFLEET_ENGINE="${LORAFLEET_ENGINE:-vllm}"
exec /home/huggingface/venv/bin/hf-serve --host 0.0.0.0 --port "${AIP_HTTP_PORT:-8080}"
