"""Serve any generator over HTTP: `knowgen serve`.

`server` runs the process, `app` has the HTTP routes, `request_parsing` reads request bodies, and `request_queue` admits
requests and sends them to the generator through the engine's `Dispatcher`.
"""
