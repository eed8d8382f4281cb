"""A double of the server in Hugging Face's older container (torch 2.3.1), which is not on PyPI, and a kit that runs the
handler under it and under the newer one."""
