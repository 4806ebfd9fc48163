"""The page of ``demo``: models at work in a browser, call by call.

``models`` finds a model and its teacher, ``drawing`` samples with both, ``markup`` makes HTML of the states, and
``page`` is the thin layer of Gradio around them. Only ``page`` needs Gradio.
"""
