"""Skips the module that imports it where one of the SDKs is missing."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
pytest.importorskip("boto3")
pytest.importorskip("cohere")
pytest.importorskip("dashscope")
pytest.importorskip("groq")
pytest.importorskip("langchain_openai")
pytest.importorskip("litellm")
pytest.importorskip("mistralai.client")
pytest.importorskip("ollama")
