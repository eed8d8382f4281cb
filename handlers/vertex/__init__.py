"""The handler for Hugging Face's inference containers on Vertex AI (README.md).

Standard library at import; torch, transformers, PEFT and vLLM only inside the functions that need them.
"""
