"""The page on which a voice is cloned and a chat read, and its HTTP interface (seed, "Quick Start", web UI).

`graph` describes the pipeline, `studio` does the work, `api` puts it behind HTTP; `page/` is what the browser shows.
"""
