"""Plugins that vLLM loads by itself in each of its processes (API server, EngineCore, workers).

vLLM looks for entry points of the group `vllm.general_plugins`. importlib.metadata finds them in any folder on sys.path
that holds a *.dist-info folder; so it is enough that the launcher puts the parent of this package on PYTHONPATH.
The names in entry_points.txt are those that the launcher allows with VLLM_PLUGINS (handlers/serving/flags.py).
"""
