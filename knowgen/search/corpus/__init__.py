"""A corpus: pages and images on disk that are searched without a network.

`knowgen corpus build` (`build`) reads HTML, text, JSONL and WARC files (`sources`) and writes a folder (`storage`),
which the search backend `corpus:DIR` (`backend`) searches.
"""
